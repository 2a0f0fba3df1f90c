//! Who may send to whom.

use std::sync::Arc;
use std::time::Duration;

use posthorn_api::routing::v1 as wire;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_mail::{EnhancedStatus, Recipient, ReversePath, Status};
use posthorn_service::{Channel, gather};
use tokio::sync::{Mutex, mpsc, oneshot};

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

/// Whether mail to a recipient is taken from this client. Ours are taken from everybody, others only from those for
/// whom mail is relayed (an open relay carries the world's spam).
pub(crate) fn decide(place: Place, may_relay: bool) -> Verdict {
    match place {
        Place::Local => Ok(()),
        Place::Relay if may_relay => Ok(()),
        Place::Relay => Err(Status::new(550, EnhancedStatus::new(5, 7, 1), "Relaying is not allowed")),
        Place::Refused(status) => Err(status),
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
}

/// What a session asks.
#[derive(Debug)]
struct Question {
    recipients: Vec<String>,
    answer: oneshot::Sender<Result<Vec<Place>, tonic::Status>>,
}

impl Admission {
    /// Starts the tasks that call the router; they end with the last clone. Must be called within a tokio runtime.
    pub(crate) fn new(router: Channel, timeout: Duration) -> Self {
        let router = RoutingServiceClient::new(router);
        let (questions, waiting) = mpsc::channel(RECIPIENTS);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..CALLS {
            tokio::spawn(ask(router.clone(), timeout, Arc::clone(&waiting)));
        }
        Self { router, timeout, questions }
    }

    /// One verdict per recipient, in order.
    pub(crate) async fn verify(
        &self,
        sender: &ReversePath,
        recipients: &[Recipient],
        may_relay: bool,
    ) -> Result<Vec<Verdict>, Away> {
        let places = self.places(recipients).await.map_err(|status| {
            tracing::warn!(code = ?status.code(), reason = status.message(), "the router does not answer");
            metrics::counter!("posthorn_ingress_router_failures_total").increment(1);
            Away
        })?;
        let verdicts: Vec<_> = places.into_iter().map(|place| decide(place, may_relay)).collect();
        for (recipient, verdict) in recipients.iter().zip(&verdicts) {
            if let Err(status) = verdict {
                tracing::debug!(recipient = %recipient.address, %sender, %status, "a recipient is refused");
                let code = status.code().to_string();
                metrics::counter!("posthorn_ingress_recipients_refused_total", "code" => code).increment(1);
            }
        }
        Ok(verdicts)
    }

    /// Whose API key this is; UNAUTHENTICATED when it is nobody's.
    pub(crate) async fn verify_key(&self, key: &str) -> Result<wire::VerifyKeyResponse, tonic::Status> {
        let mut router = self.router.clone();
        let call = router.verify_key(wire::VerifyKeyRequest { key: key.to_owned() });
        let answer = tokio::time::timeout(self.timeout, call)
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??;
        Ok(answer.into_inner())
    }

    async fn places(&self, recipients: &[Recipient]) -> Result<Vec<Place>, tonic::Status> {
        let gone = || tonic::Status::internal("nobody asks the router any more");
        let recipients = recipients.iter().map(|recipient| recipient.address.to_string()).collect();
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { recipients, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Calls the router with what has gathered, again and again.
async fn ask(
    mut router: RoutingServiceClient<Channel>,
    timeout: Duration,
    waiting: Arc<Mutex<mpsc::Receiver<Question>>>,
) {
    loop {
        let mut asked = 0;
        let is_full = |question: &Question| {
            asked += question.recipients.len();
            asked >= RECIPIENTS
        };
        let Some(mut questions) = gather(&waiting, is_full).await else { return };
        let counts: Vec<usize> = questions.iter().map(|question| question.recipients.len()).collect();
        let recipients = questions.iter_mut().flat_map(|q| std::mem::take(&mut q.recipients)).collect();
        let places = call(&mut router, timeout, recipients).await;
        let mut places = places.map(Vec::into_iter);
        for (Question { answer, .. }, count) in questions.into_iter().zip(counts) {
            // The session may have been cut off meanwhile.
            let _ = answer.send(match &mut places {
                Ok(places) => Ok(places.take(count).collect()),
                Err(status) => Err(status.clone()),
            });
        }
    }
}

async fn call(
    router: &mut RoutingServiceClient<Channel>,
    timeout: Duration,
    recipients: Vec<String>,
) -> Result<Vec<Place>, tonic::Status> {
    let asked = recipients.len();
    let answer = tokio::time::timeout(timeout, router.verify(wire::VerifyRequest { recipients }))
        .await
        .map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??
        .into_inner();
    if answer.results.len() != asked {
        return Err(tonic::Status::internal("the router answered for another number of recipients"));
    }
    answer.results.into_iter().map(place).collect()
}

fn place(result: wire::VerifyResult) -> Result<Place, tonic::Status> {
    use wire::verify_result::Result as Wire;
    match result.result {
        Some(Wire::Local(_)) => Ok(Place::Local),
        Some(Wire::Relay(_)) => Ok(Place::Relay),
        Some(Wire::Refused(status)) => Ok(Place::Refused(status.try_into()?)),
        None => Err(tonic::Status::internal("the router answered nothing for a recipient")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let verdict = decide(place.clone(), may_relay);
            assert_eq!(verdict.err().map(|status| status.code()), code, "{place:?} {may_relay}");
        }
    }
}
