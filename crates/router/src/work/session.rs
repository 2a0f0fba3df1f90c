//! One stream to the queue, from Hello to the last Recorded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use posthorn_api::work::v1 as wire;
use posthorn_api::work::v1::work_request::Request;
use posthorn_api::work::v1::work_response::Response;
use posthorn_mail::{EnhancedStatus, MessageId, Status};
use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::Instrument as _;

use super::item::Recipients;
use super::slots::Slots;
use super::told;
use crate::config;
use crate::directory;
use crate::router::{Asked, Router};

/// A report is sent before it holds more targets than this, so that it stays far below the largest message.
const TARGETS_A_REPORT: usize = 50_000;

/// How a session ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// All is acknowledged, after being told to stop.
    Stopped,
    /// The queue wants a new stream.
    SentAway(String),
    /// The stream broke: what was not acknowledged falls due again.
    Lost(String),
}

/// A message that is ours until it is reported or given back.
#[derive(Debug, Clone)]
struct Leased {
    token: Bytes,
    message_id: Bytes,
}

/// What was decided about a message; `None`: the directory is away, and the message is given back.
type Decided = Option<wire::RouteReport>;

pub(crate) struct Session {
    router: Arc<Router>,
    requests: mpsc::Sender<wire::WorkRequest>,
    slots: Slots,
    drain: Duration,
    tasks: JoinSet<Decided>,
    /// The messages under way.
    under_way: HashMap<task::Id, Leased>,
    lease: Duration,
    /// When the leases of these batches are to be extended.
    extend_at: Option<Instant>,
    /// Reports without their Recorded.
    unrecorded: HashSet<u64>,
    last_report: u64,
    /// The directory was away when it was last asked.
    paused: bool,
    /// No more work is taken; why.
    leaving: Option<Leaving>,
}

enum Leaving {
    Stopping,
    SentAway(String),
}

type Sent = Result<(), String>;

impl Session {
    pub(crate) fn new(
        router: Arc<Router>,
        requests: mpsc::Sender<wire::WorkRequest>,
        config: &config::Work,
    ) -> Self {
        Self {
            router,
            requests,
            slots: Slots::new(config.max_items, config.max_batch as usize, config.batches),
            drain: config.drain,
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
            lease: Duration::from_secs(60),
            extend_at: None,
            unrecorded: HashSet::new(),
            last_report: 0,
            paused: false,
            leaving: None,
        }
    }

    /// Works until the stream ends.
    pub(crate) async fn run(
        mut self,
        mut responses: Streaming<wire::WorkResponse>,
        shutdown: &CancellationToken,
    ) -> Ended {
        if let Err(reason) = self.serve(&mut responses, shutdown).await {
            return Ended::Lost(reason);
        }
        // The queue ends its side when it has read ours to the end.
        drop(self.requests);
        let end = async { while let Ok(Some(_)) = responses.message().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), end).await;
        match self.leaving {
            Some(Leaving::SentAway(reason)) => Ended::SentAway(reason),
            Some(Leaving::Stopping) | None => Ended::Stopped,
        }
    }

    async fn serve(
        &mut self,
        responses: &mut Streaming<wire::WorkResponse>,
        shutdown: &CancellationToken,
    ) -> Sent {
        let mut deadline = None;
        loop {
            self.ask_for_work().await?;
            if self.leaving.is_some() && self.tasks.is_empty() && self.unrecorded.is_empty() {
                return Ok(());
            }
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => self.receive(response).await?,
                    Ok(None) => return Err("the queue ended the stream".into()),
                    Err(status) => return Err(told(status)),
                },
                Some(done) = self.tasks.join_next_with_id() => self.report(done).await?,
                () = shutdown.cancelled(), if !matches!(self.leaving, Some(Leaving::Stopping)) => {
                    self.leaving = Some(Leaving::Stopping);
                    deadline = Some(Instant::now() + self.drain);
                }
                () = at(self.extend_at) => self.extend().await?,
                () = directory_back(&self.router), if self.paused && self.leaving.is_none() => self.paused = false,
                () = at(deadline) => {
                    self.give_up().await?;
                    return Ok(());
                }
            }
        }
    }

    async fn ask_for_work(&mut self) -> Sent {
        if self.leaving.is_some() || self.paused {
            return Ok(());
        }
        match self.slots.grant() {
            0 => Ok(()),
            batches => self.send(Request::Credit(wire::Credit { batches })).await,
        }
    }

    async fn receive(&mut self, response: wire::WorkResponse) -> Sent {
        match response.response {
            Some(Response::Batch(batch)) => self.take(batch).await,
            Some(Response::Recorded(recorded)) => {
                self.unrecorded.remove(&recorded.report_id);
                let stale = recorded.stale.len() as u64;
                metrics::counter!("posthorn_router_stale_reports_total").increment(stale);
                Ok(())
            }
            Some(Response::GoAway(go_away)) => {
                if self.leaving.is_none() {
                    self.leaving = Some(Leaving::SentAway(go_away.reason));
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Begins a batch, or gives it back at once when there is no use in beginning.
    async fn take(&mut self, batch: wire::Batch) -> Sent {
        self.slots.took(batch.items.len());
        if let Some(lease) = batch.lease {
            self.lease = posthorn_api::period(lease).max(Duration::from_secs(1));
        }
        // Early enough for a second try before the first of them ends.
        self.extend_at.get_or_insert(Instant::now() + self.lease / 3);
        if self.leaving.is_some() || self.paused {
            self.slots.finished(batch.items.len());
            let token = &batch.token;
            let items = batch
                .items
                .into_iter()
                .map(|item| wire::ReleasedItem { token: token.clone(), message_id: item.message_id });
            return self.send(Request::Release(wire::Release { items: items.collect() })).await;
        }
        let items: Vec<(wire::Item, Recipients)> = batch
            .items
            .into_iter()
            .map(|item| {
                let recipients = Recipients::of(&item);
                (item, recipients)
            })
            .collect();
        // The first look-ups of all messages of the batch together; each message then finds them in the cache.
        let asked: Vec<Asked> = items.iter().flat_map(|(_, r)| r.asked.iter().cloned()).collect();
        let router = self.router.clone();
        let warm = async move { drop(router.warm(&asked).await) }.boxed().shared();
        for (item, recipients) in items {
            let (router, warm) = (self.router.clone(), warm.clone());
            let span = span_of(&item);
            let decided = async move {
                warm.await;
                decide(&router, recipients).await
            };
            let task = self.tasks.spawn(decided.instrument(span));
            let leased = Leased { token: batch.token.clone(), message_id: item.message_id };
            self.under_way.insert(task.id(), leased);
        }
        Ok(())
    }

    /// Reports a message and all others that are ready by now.
    async fn report(&mut self, first: Joined) -> Sent {
        let (mut reports, mut given_back, mut targets) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(joined) = next {
            match self.finish(joined) {
                Some((leased, Some(route))) => {
                    targets += route.results.iter().map(|result| result.targets.len()).sum::<usize>();
                    let report = Some(wire::item_report::Report::Route(route));
                    let Leased { token, message_id } = leased;
                    reports.push(wire::ItemReport { token, message_id, report });
                }
                Some((leased, None)) => {
                    self.paused = true;
                    given_back.push(released(leased));
                }
                None => {}
            }
            next = if targets < TARGETS_A_REPORT { self.tasks.try_join_next_with_id() } else { None };
        }
        if !given_back.is_empty() {
            self.send(Request::Release(wire::Release { items: given_back })).await?;
        }
        if reports.is_empty() {
            return Ok(());
        }
        self.last_report += 1;
        self.unrecorded.insert(self.last_report);
        metrics::counter!("posthorn_router_routed_total").increment(reports.len() as u64);
        self.send(Request::Report(wire::Report { report_id: self.last_report, items: reports })).await
    }

    /// The message is no longer under way. One whose decision panicked (a mistake of ours) is left to its lease's end,
    /// so that the queue sees that it fails its workers.
    fn finish(&mut self, joined: Joined) -> Option<(Leased, Decided)> {
        self.slots.finished(1);
        match joined {
            Ok((id, decided)) => Some((self.under_way.remove(&id)?, decided)),
            Err(failure) => {
                let leased = self.under_way.remove(&failure.id());
                tracing::error!(%failure, ?leased, "no decision was made");
                None
            }
        }
    }

    async fn extend(&mut self) -> Sent {
        let tokens: HashSet<Bytes> = self.under_way.values().map(|leased| leased.token.clone()).collect();
        if tokens.is_empty() {
            self.extend_at = None;
            return Ok(());
        }
        self.extend_at = Some(Instant::now() + self.lease / 3);
        self.send(Request::Extend(wire::Extend { tokens: tokens.into_iter().collect() })).await
    }

    /// Gives back what could not be finished in time.
    async fn give_up(&mut self) -> Sent {
        self.tasks.abort_all();
        let items: Vec<wire::ReleasedItem> =
            self.under_way.drain().map(|(_, leased)| released(leased)).collect();
        tracing::warn!(messages = items.len(), "given back undecided at the end of the drain time");
        self.send(Request::Release(wire::Release { items })).await
    }

    async fn send(&self, request: Request) -> Sent {
        let request = wire::WorkRequest { request: Some(request) };
        self.requests.send(request).await.map_err(|_| "the stream to the queue is closed".to_owned())
    }
}

type Joined = Result<(task::Id, Decided), task::JoinError>;

fn released(leased: Leased) -> wire::ReleasedItem {
    wire::ReleasedItem { token: leased.token, message_id: leased.message_id }
}

fn span_of(item: &wire::Item) -> tracing::Span {
    let message_id = MessageId::try_from(&*item.message_id).map(|id| id.to_string()).unwrap_or_default();
    let span = tracing::info_span!("route", message_id, recipients = item.recipients.len());
    posthorn_service::trace::link(&span, &item.traceparent);
    span
}

async fn decide(router: &Router, recipients: Recipients) -> Decided {
    let begun = Instant::now();
    let decided = router.decide(&recipients.asked).await;
    metrics::histogram!("posthorn_router_decision_seconds").record(begun.elapsed().as_secs_f64());
    match decided {
        Ok(decided) => {
            tracing::debug!(?decided, "routed");
            Some(recipients.report(decided))
        }
        Err(directory::Error::Unavailable(reason)) => {
            tracing::warn!(%reason, "the directory is away: given back");
            None
        }
        Err(reason) => {
            tracing::error!(%reason, "put off");
            let status = Status::new(451, EnhancedStatus::new(4, 3, 0), "The directory cannot answer");
            Some(recipients.put_off(&status))
        }
    }
}

/// Ends when the directory answers again.
async fn directory_back(router: &Router) {
    let mut pause = Duration::from_millis(100);
    loop {
        tokio::time::sleep(pause).await;
        match directory::ping(&router.pool).await {
            Ok(()) => return,
            Err(reason) => tracing::warn!(%reason, "waiting for the directory"),
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Ends at that time, or never.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
