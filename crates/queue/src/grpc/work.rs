//! `WorkService`: the streams of the workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use posthorn_api::error::invalid;
use posthorn_api::message_id;
use posthorn_api::work::v1::work_service_server::WorkService;
use posthorn_api::work::v1::{
    GoAway, Hello, ItemReport, Recorded, ReleasedItem, WorkKind, WorkRequest, WorkResponse, item_report,
    work_request::Request as Said, work_response::Response as Answer,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::dispatch::{self, Worker};
use crate::hub::Hub;
use crate::in_hand::Letter;
use crate::outcome::route::Routed;
use crate::outcome::{Outcomes, Report, Reported};
use crate::schedule::{Key, Kind, Settle, Then, Token};

/// Batches that a worker may ask for at once; more credits are kept, not lost, up to this.
const MAX_CREDITS: usize = 10_000;
/// Answers that may wait for a slow worker.
const ANSWERS: usize = 64;

/// Streams so far.
static WORKERS: AtomicU64 = AtomicU64::new(0);

/// Serves the workers.
pub(crate) struct Work {
    pub(crate) hub: Arc<Hub>,
    pub(crate) outcomes: Outcomes,
}

#[tonic::async_trait]
impl WorkService for Work {
    type WorkStream = ReceiverStream<Result<WorkResponse, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let mut requests = request.into_inner();
        let Some(Said::Hello(hello)) = requests.message().await?.and_then(|first| first.request) else {
            return Err(invalid("request", "a stream begins with Hello"));
        };
        let (out, answers) = mpsc::channel(ANSWERS);
        let worker = Arc::new(read_hello(&self.hub, hello, out)?);
        let stream = Stream { hub: self.hub.clone(), outcomes: self.outcomes.clone(), worker };
        tokio::spawn(stream.run(requests));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

fn read_hello(
    hub: &Hub,
    hello: Hello,
    out: mpsc::Sender<Result<WorkResponse, Status>>,
) -> Result<Worker, Status> {
    let kind = match hello.kind() {
        WorkKind::Unspecified => return Err(invalid("hello.kind", "is missing")),
        WorkKind::Route => Kind::Route,
        WorkKind::Local => Kind::Local,
        WorkKind::Remote => Kind::Remote,
    };
    Ok(Worker {
        kind,
        max_batch: hello.max_batch.clamp(1, hub.config.lease.max_batch),
        takes_early: hello.takes_early,
        id: WORKERS.fetch_add(1, Ordering::Relaxed),
        name: hello.worker,
        credits: Semaphore::new(0),
        given: Mutex::new(Vec::new()),
        out,
        gone: CancellationToken::new(),
    })
}

/// A worker's stream.
struct Stream {
    hub: Arc<Hub>,
    outcomes: Outcomes,
    worker: Arc<Worker>,
}

impl Stream {
    async fn run(self, mut requests: Streaming<WorkRequest>) {
        let (kind, name) = (self.worker.kind.name(), self.worker.name.clone());
        tracing::info!(kind, worker = name, "a worker has come");
        let mut tasks = JoinSet::new();
        tasks.spawn(dispatch::serve(self.hub.clone(), self.worker.clone()));
        let goodbye = tokio::spawn(say_goodbye(self.hub.clone(), self.worker.clone()));
        let end = loop {
            let request = tokio::select! {
                request = requests.message() => request,
                () = self.hub.cut.cancelled() => break Ok(()),
            };
            match request {
                Ok(Some(WorkRequest { request: Some(said) })) => {
                    if let Err(status) = self.hear(said, &mut tasks).await {
                        break Err(status);
                    }
                }
                // An unknown request of a newer neighbour.
                Ok(Some(WorkRequest { request: None })) => {}
                Ok(None) => break Ok(()),
                Err(status) => {
                    tracing::debug!(kind, worker = name, %status, "a worker's stream is broken");
                    break Ok(());
                }
            }
            while tasks.try_join_next().is_some() {}
        };
        goodbye.abort();
        self.worker.gone.cancel();
        // What was reported is recorded, also when nobody waits for the word any more.
        while tasks.join_next().await.is_some() {}
        dispatch::orphan(&self.hub, &self.worker).await;
        if let Err(status) = end {
            let _ = self.worker.out.send(Err(status)).await;
        }
        tracing::info!(kind, worker = name, "a worker has gone");
    }

    async fn hear(&self, said: Said, tasks: &mut JoinSet<()>) -> Result<(), Status> {
        match said {
            Said::Hello(_) => Err(invalid("request", "a stream has one Hello, at its beginning")),
            Said::Credit(credit) => {
                let room = MAX_CREDITS.saturating_sub(self.worker.credits.available_permits());
                self.worker.credits.add_permits((credit.batches as usize).min(room));
                Ok(())
            }
            Said::Report(report) => {
                let items =
                    report.items.into_iter().map(|i| self.read(i)).collect::<Result<Vec<_>, Status>>()?;
                tasks.spawn(record(
                    self.hub.clone(),
                    self.outcomes.clone(),
                    self.worker.clone(),
                    report.report_id,
                    items,
                ));
                Ok(())
            }
            Said::Extend(extend) => {
                for token in extend.tokens {
                    self.extend(token_of("extend.tokens", &token)?).await;
                }
                Ok(())
            }
            Said::Release(release) => {
                let ends = release.items.into_iter().map(given_back).collect::<Result<_, _>>()?;
                tasks.spawn(take_back(self.hub.clone(), self.worker.kind, ends));
                Ok(())
            }
        }
    }

    fn read(&self, item: ItemReport) -> Result<Reported, Status> {
        let token = token_of("report.items.token", &item.token)?;
        let message = message_id("report.items.message_id", &item.message_id)?;
        let report = match (item.report, token.kind()) {
            (Some(item_report::Report::Route(route)), Kind::Route) => {
                Report::Route(route.results.into_iter().map(Routed::read).collect::<Result<_, _>>()?)
            }
            (Some(item_report::Report::Delivery(delivery)), Kind::Local | Kind::Remote) => {
                let outcome = |r: posthorn_api::work::v1::RecipientOutcome| {
                    let outcome = r.outcome.ok_or_else(|| invalid("recipients.outcome", "is missing"))?;
                    Ok((r.recipient_no, outcome.try_into()?))
                };
                Report::Delivery(delivery.recipients.into_iter().map(outcome).collect::<Result<_, Status>>()?)
            }
            _ => return Err(invalid("report.items.report", "is missing, or not of the kind of its batch")),
        };
        Ok(Reported { token, message, report })
    }

    async fn extend(&self, token: Token) {
        let now = self.hub.now();
        let in_hand = self.hub.in_hand.renew(token, Instant::now());
        if !in_hand.is_empty() {
            let until = now + self.hub.config.lease.length;
            if let Err(error) = self.hub.schedule.keep_in_hand(Kind::Route, &in_hand, until).await {
                self.hub.redis_failed(&error);
            }
            return;
        }
        self.hub.leases.renew(token, Instant::now());
        for partition in self.hub.schedule.partitions() {
            let until = now + self.hub.config.lease.length;
            if let Err(error) = self.hub.schedule.extend(token, partition, now, until).await {
                self.hub.redis_failed(&error);
            }
        }
    }
}

fn token_of(field: &str, bytes: &[u8]) -> Result<Token, Status> {
    Token::parse(bytes).ok_or_else(|| invalid(field, "is no token of this queue"))
}

fn given_back(item: ReleasedItem) -> Result<Settle, Status> {
    let token = token_of("release.items.token", &item.token)?;
    let message = message_id("release.items.message_id", &item.message_id)?;
    Ok(Settle { key: Key { message, lane: token.lane() }, token, then: Then::Back })
}

/// Gives to others what a worker has not begun, once it is in the ledger, where they look for it.
async fn take_back(hub: Arc<Hub>, kind: Kind, mut ends: Vec<Settle>) {
    let named = || ends.iter().map(|end| (end.token, end.key.message));
    hub.in_hand.until_kept(named()).await;
    let in_hand = hub.in_hand.take_back(named(), Instant::now());
    let mut kept = in_hand.iter().map(Option::is_none);
    ends.retain(|_| kept.next().unwrap_or(true));
    let in_hand: Vec<_> = in_hand.iter().flatten().map(Letter::item).collect();
    dispatch::pass_on(&hub, &in_hand, hub.now()).await;
    if ends.is_empty() {
        return;
    }
    hub.leases.settle(&ends.iter().map(|end| (end.token, end.key)).collect::<Vec<_>>());
    match hub.schedule.settle(&ends, hub.now()).await {
        Ok(_) => hub.wake.wake(kind),
        Err(error) => hub.redis_failed(&error),
    }
}

/// Writes a report and says so.
async fn record(
    hub: Arc<Hub>,
    outcomes: Outcomes,
    worker: Arc<Worker>,
    report_id: u64,
    items: Vec<Reported>,
) {
    let named: Vec<ReleasedItem> = items
        .iter()
        .map(|item| ReleasedItem {
            token: bytes::Bytes::copy_from_slice(item.token.bytes()),
            message_id: posthorn_api::message_id_bytes(item.message),
        })
        .collect();
    hub.in_hand.until_kept(items.iter().map(|item| (item.token, item.message))).await;
    // Unrecorded: the worker does not hear of it, and its stream ends with the service.
    let Some(stale) = outcomes.record(items).await else { return };
    let stale = named.into_iter().zip(stale).filter(|(_, stale)| *stale).map(|(item, _)| item).collect();
    let recorded = Answer::Recorded(Recorded { report_id, stale });
    let _ = worker.out.send(Ok(WorkResponse { response: Some(recorded) })).await;
}

/// Tells the worker when the service is to stop.
async fn say_goodbye(hub: Arc<Hub>, worker: Arc<Worker>) {
    hub.shutdown.cancelled().await;
    let go_away = Answer::GoAway(GoAway { reason: "the queue is stopping".into() });
    let _ = worker.out.send(Ok(WorkResponse { response: Some(go_away) })).await;
}
