//! Who may send to whom.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use posthorn_api::routing::v1 as wire;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_api::work::v1::RouteTarget;
use posthorn_mail::{Address, EnhancedStatus, Envelope, Recipient, ReversePath, Status};
use posthorn_service::{Channel, Error, connect_among, gather, replicas, within};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::Handover;
use crate::admission::remembered::Remembered;

mod changes;
mod remembered;

/// What the router says about a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is one of ours.
    Local,
    /// It is in a domain of others.
    Relay,
    /// It is not to be had, or not now.
    Refused(Status),
}

/// What the router says about an address.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    place: Place,
    /// Whose domain it is in, where that is one of ours; empty otherwise.
    tenant: String,
    /// Where its mail goes, if it is itself a mailbox here.
    target: Option<RouteTarget>,
    /// How long this holds without asking again.
    good_for: Duration,
}

/// What the router says about a program's message.
#[derive(Debug)]
pub(crate) struct Judged {
    /// One an author, in order: whose domain its address is in, where that is one of ours; empty otherwise.
    pub(crate) owners: Vec<String>,
    /// One a recipient, in order.
    pub(crate) verdicts: Vec<Verdict>,
}

/// Whether mail to a recipient is taken from this client. Ours are taken from everybody, others only from those for
/// whom mail is relayed (an open relay carries the world's spam).
pub(crate) fn decide(place: &Place, may_relay: bool) -> Verdict {
    match place {
        Place::Local => Ok(()),
        Place::Relay if may_relay => Ok(()),
        Place::Relay => Err(Status::new(550, EnhancedStatus::new(5, 7, 1), "Relaying is not allowed")),
        Place::Refused(status) => Err(status.clone()),
    }
}

/// Whether mail to a recipient is taken, and if not, why.
pub(crate) type Verdict = Result<(), Status>;

/// The router did not answer: nothing is known, so nothing is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Away;

impl Away {
    /// What an SMTP client is told.
    pub(crate) fn status(self) -> Status {
        Status::new(451, EnhancedStatus::new(4, 4, 3), "Cannot look the recipient up, try again later")
    }
}

/// Calls to the router that may be under way at once, and recipients in one of them.
const CALLS: usize = 4;
const RECIPIENTS: usize = 1000;

/// Asks the router. What several sessions ask while calls are under way goes into one (R7). Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    router: RoutingServiceClient<Channel>,
    timeout: Duration,
    questions: mpsc::Sender<Question>,
    remembered: Arc<Remembered>,
    /// Hears when to forget it.
    _hearing: Arc<AbortOnDropHandle<()>>,
}

/// What a session asks.
#[derive(Debug)]
struct Question {
    addresses: Vec<String>,
    answer: oneshot::Sender<Result<Vec<Arc<Known>>, tonic::Status>>,
}

impl Admission {
    /// Starts the tasks that call the router at this URL; they end with the last clone. Must be called within a tokio
    /// runtime.
    pub(crate) fn new(router: &str, config: &Handover) -> Result<Self, Error> {
        let timeout = config.verify_timeout;
        let remembered = Arc::new(Remembered::new(config.verified));
        // None is asked that is not heard.
        let replicas = replicas(router)?;
        let router = RoutingServiceClient::new(connect_among(replicas.clone()));
        let hearing = tokio::spawn(changes::hear(replicas, remembered.clone()));
        let (questions, waiting) = mpsc::channel(RECIPIENTS);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..CALLS {
            tokio::spawn(ask(router.clone(), timeout, Arc::clone(&waiting)));
        }
        let hearing = Arc::new(AbortOnDropHandle::new(hearing));
        Ok(Self { router, timeout, questions, remembered, _hearing: hearing })
    }

    /// One verdict per recipient, in order.
    pub(crate) async fn verify(
        &self,
        sender: &ReversePath,
        recipients: &[Recipient],
        may_relay: bool,
    ) -> Result<Vec<Verdict>, Away> {
        let known = self.known(addresses(recipients).collect()).await?;
        Ok(judge(sender, recipients, known, may_relay))
    }

    /// The same for a program, which may relay; and whose its authors are.
    pub(crate) async fn judge(&self, authors: &[Address], envelope: &Envelope) -> Result<Judged, Away> {
        let asked = authors.iter().map(Address::to_string).chain(addresses(&envelope.recipients));
        let mut known = self.known(asked.collect()).await?;
        let recipients = known.split_off(authors.len());
        let verdicts = judge(&envelope.sender, &envelope.recipients, recipients, true);
        Ok(Judged { owners: known.into_iter().map(|author| author.tenant.clone()).collect(), verdicts })
    }

    /// Where mail for these goes, one each and in order, if it is known of all of them by what the router has said; none
    /// otherwise.
    pub(crate) fn routed<'a>(&self, recipients: impl Iterator<Item = &'a str>) -> Vec<RouteTarget> {
        let now = Instant::now();
        let targets = recipients.map(|address| self.remembered.get(address, now)?.target.clone());
        targets.collect::<Option<_>>().unwrap_or_default()
    }

    /// Whose API key this is; UNAUTHENTICATED when it is nobody's.
    pub(crate) async fn verify_key(&self, key: &str) -> Result<wire::VerifyKeyResponse, tonic::Status> {
        let call = || {
            let (mut router, key) = (self.router.clone(), key.to_owned());
            async move { router.verify_key(wire::VerifyKeyRequest { key }).await }
        };
        answer(self.timeout, call).await
    }

    /// What is remembered, and for the rest what the router says now.
    async fn known(&self, addresses: Vec<String>) -> Result<Vec<Arc<Known>>, Away> {
        let asked = (self.remembered.generation(), Instant::now());
        let mut known: Vec<_> = addresses.iter().map(|a| self.remembered.get(a, asked.1)).collect();
        let unknown = addresses.iter().zip(&known).filter(|(_, known)| known.is_none());
        let unknown: Vec<String> = unknown.map(|(address, _)| address.clone()).collect();
        metrics::counter!("posthorn_ingress_recipients_remembered_total")
            .increment((addresses.len() - unknown.len()) as u64);
        if !unknown.is_empty() {
            let mut said = self.ask(unknown).await.map_err(away)?.into_iter();
            for (address, known) in addresses.into_iter().zip(&mut known).filter(|(_, k)| k.is_none()) {
                *known = said.next().inspect(|said| self.remembered.keep(asked, address, said));
            }
        }
        Ok(known.into_iter().flatten().collect())
    }

    async fn ask(&self, addresses: Vec<String>) -> Result<Vec<Arc<Known>>, tonic::Status> {
        let gone = || tonic::Status::internal("nobody asks the router any more");
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { addresses, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn away(status: tonic::Status) -> Away {
    tracing::warn!(code = ?status.code(), reason = status.message(), "the router does not answer");
    metrics::counter!("posthorn_ingress_router_failures_total").increment(1);
    Away
}

fn addresses(recipients: &[Recipient]) -> impl Iterator<Item = String> {
    recipients.iter().map(|recipient| recipient.address.to_string())
}

/// One verdict a recipient, in order; refusals are counted.
fn judge(
    sender: &ReversePath,
    recipients: &[Recipient],
    known: Vec<Arc<Known>>,
    may_relay: bool,
) -> Vec<Verdict> {
    let verdicts: Vec<_> = known.into_iter().map(|known| decide(&known.place, may_relay)).collect();
    for (recipient, verdict) in recipients.iter().zip(&verdicts) {
        if let Err(status) = verdict {
            tracing::debug!(recipient = %recipient.address, %sender, %status, "a recipient is refused");
            let code = status.code().to_string();
            metrics::counter!("posthorn_ingress_recipients_refused_total", "code" => code).increment(1);
        }
    }
    verdicts
}

/// Calls the router with what has gathered, again and again.
async fn ask(
    router: RoutingServiceClient<Channel>,
    timeout: Duration,
    waiting: Arc<Mutex<mpsc::Receiver<Question>>>,
) {
    loop {
        let mut asked = 0;
        let is_full = |question: &Question| {
            asked += question.addresses.len();
            asked >= RECIPIENTS
        };
        let Some(mut questions) = gather(&waiting, is_full).await else { return };
        let counts: Vec<usize> = questions.iter().map(|question| question.addresses.len()).collect();
        let addresses = questions.iter_mut().flat_map(|q| std::mem::take(&mut q.addresses)).collect();
        let known = call(&router, timeout, addresses).await;
        let mut known = known.map(Vec::into_iter);
        for (Question { answer, .. }, count) in questions.into_iter().zip(counts) {
            // The session may have been cut off meanwhile.
            let _ = answer.send(match &mut known {
                Ok(known) => Ok(known.take(count).collect()),
                Err(status) => Err(status.clone()),
            });
        }
    }
}

async fn call(
    router: &RoutingServiceClient<Channel>,
    timeout: Duration,
    recipients: Vec<String>,
) -> Result<Vec<Arc<Known>>, tonic::Status> {
    let asked = recipients.len();
    let call = || {
        let (mut router, recipients) = (router.clone(), recipients.clone());
        async move { router.verify(wire::VerifyRequest { recipients }).await }
    };
    let answer = answer(timeout, call).await?;
    if answer.results.len() != asked {
        return Err(tonic::Status::internal("the router answered for another number of recipients"));
    }
    answer.results.into_iter().map(|result| known(result).map(Arc::new)).collect()
}

/// Asks, and once more where not the router said why it did not answer, but the connection broke: that replica has just
/// gone, and another one answers.
async fn answer<T, F>(timeout: Duration, mut call: impl FnMut() -> F) -> Result<T, tonic::Status>
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let asked = async {
        match call().await {
            Err(status) if status.source().is_some() => {
                tracing::debug!(code = ?status.code(), reason = status.message(), "asking the router once more");
                call().await
            }
            answered => answered,
        }
    };
    within(timeout, asked).await.map(tonic::Response::into_inner)
}

fn known(result: wire::VerifyResult) -> Result<Known, tonic::Status> {
    use wire::verify_result::Result as Wire;
    let (mut tenant, mut target) = (result.tenant_id, None);
    let good_for = result.cache_for.map(posthorn_api::period).unwrap_or_default();
    let place = match result.result {
        Some(Wire::Local(local)) => {
            // An older router says it here alone.
            tenant = local.tenant_id;
            target = local.target;
            Place::Local
        }
        Some(Wire::Relay(_)) => Place::Relay,
        Some(Wire::Refused(status)) => Place::Refused(status.try_into()?),
        None => return Err(tonic::Status::internal("the router answered nothing for a recipient")),
    };
    Ok(Known { place, tenant, good_for, target })
}

#[cfg(test)]
mod tests {
    use posthorn_service::config::Sources;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_router_that_goes_while_it_is_asked_is_asked_once_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let router = format!("http://{}", listener.local_addr().unwrap());
        let config = crate::Config::load(&Sources::default()).unwrap();
        let admission = Admission::new(&router, &config.handover).unwrap();
        let asking = tokio::spawn(async move { admission.verify_key("key").await });
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        }
        drop(listener);
        assert!(asking.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_router_that_says_no_is_not_asked_again() {
        let mut asked = 0;
        let call = || {
            asked += 1;
            async { Err::<tonic::Response<()>, _>(tonic::Status::unavailable("the directory is away")) }
        };
        assert!(answer(Duration::from_secs(20), call).await.is_err());
        assert_eq!(asked, 1);
    }

    #[test]
    fn strangers_may_send_only_to_us() {
        let unknown = Status::new(550, EnhancedStatus::new(5, 1, 1), "No such user");
        for (place, may_relay, code) in [
            (Place::Local, false, None),
            (Place::Local, true, None),
            (Place::Relay, false, Some(550)),
            (Place::Relay, true, None),
            (Place::Refused(unknown.clone()), true, Some(550)),
            (Place::Refused(Away.status()), false, Some(451)),
        ] {
            let verdict = decide(&place, may_relay);
            assert_eq!(verdict.err().map(|status| status.code()), code, "{place:?} {may_relay}");
        }
    }
}
