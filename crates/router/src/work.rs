//! The worker: takes fresh messages from the queue and returns what was decided for their recipients.
//!
//! Every message is decided on its own, many at once, and reported as soon as it is. While the directory is away messages
//! are given back and no more are asked for.

mod item;
mod room;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use posthorn_api::work::v1::{RouteReport, WorkKind, item_report::Report};
use posthorn_mail::{EnhancedStatus, Status};
use posthorn_service::{Need, Replicas, trace};
use posthorn_work::{Batch, Held, Leased, Work};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::config;
use crate::directory;
use crate::router::{Asked, Router};
use item::Recipients;
pub(crate) use item::target;

/// What giving back, and the last Recorded, may take at the end of the drain time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Works until told to stop; then what was begun is finished and acknowledged, and the rest given back.
pub(crate) async fn work(
    router: Arc<Router>,
    queue: Replicas,
    config: config::Work,
    need: Need,
    shutdown: CancellationToken,
) {
    let (drain, cut) = (config.drain, CancellationToken::new());
    let decider = Decider { router, directory_away: AtomicBool::new(false), cut: cut.clone() };
    let routing = Routing { config, decider: Arc::new(decider) };
    tokio::select! {
        // A queue that is away is not waited for: what was decided is decided again.
        () = posthorn_work::run(routing, queue, &need, shutdown.clone(), shutdown.clone()) => {}
        () = late(&shutdown, &cut, drain) => {
            tracing::warn!("decisions could not be recorded in time; their messages fall due again");
        }
    }
    // What is still under way would decide for nobody.
    cut.cancel();
}

/// Has what is under way given back at the end of the drain time; ends when it is too late for that, too.
async fn late(shutdown: &CancellationToken, cut: &CancellationToken, drain: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(drain).await;
    tracing::warn!("what is undecided at the end of the drain time is given back");
    cut.cancel();
    tokio::time::sleep(LAST_WORDS).await;
}

/// Begins each message in a task of its own.
struct Routing {
    config: config::Work,
    decider: Arc<Decider>,
}

/// What the tasks share.
struct Decider {
    router: Arc<Router>,
    /// The directory was away when it was last asked.
    directory_away: AtomicBool,
    /// What is under way is given back.
    cut: CancellationToken,
}

impl Work for Routing {
    const KIND: WorkKind = WorkKind::Route;
    const STALE: &'static str = "posthorn_router_stale_reports_total";

    fn max_batch(&self) -> u32 {
        self.config.max_batch
    }

    fn ask(&self, held: Held) -> u32 {
        if self.decider.directory_is_away() { 0 } else { room::batches(&self.config, held) }
    }

    fn begin(&mut self, batch: Batch) {
        if self.decider.directory_is_away() {
            // Dropped, it is given back.
            return;
        }
        let read = |leased: Leased| (Recipients::of(&leased.item), leased);
        let items: Vec<(Recipients, Leased)> = batch.items.into_iter().map(read).collect();
        // The first look-ups of all messages of the batch together; each message then finds them in the cache.
        let asked: Vec<Asked> = items.iter().flat_map(|(r, _)| r.asked.iter().cloned()).collect();
        let router = self.decider.router.clone();
        let warm = async move { drop(router.warm(&asked).await) }.boxed().shared();
        for (recipients, leased) in items {
            let (decider, warm, span) = (self.decider.clone(), warm.clone(), span_of(&leased));
            let decided = async move { decider.decide(warm, recipients, leased).await };
            tokio::spawn(decided.instrument(span));
        }
    }

    /// Ends when the directory answers again.
    async fn changed(&self) {
        if !self.decider.directory_is_away() {
            return std::future::pending().await;
        }
        let mut pause = Duration::from_millis(100);
        loop {
            tokio::time::sleep(pause).await;
            match self.decider.router.ping().await {
                Ok(()) => break,
                Err(reason) => tracing::warn!(%reason, "waiting for the directory"),
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        self.decider.directory_away.store(false, Ordering::Relaxed);
    }
}

impl Decider {
    fn directory_is_away(&self) -> bool {
        self.directory_away.load(Ordering::Relaxed)
    }

    /// Decides and reports; a message that is not decided is dropped, which gives it back.
    async fn decide(&self, warm: impl Future<Output = ()>, recipients: Recipients, leased: Leased) {
        let report = tokio::select! {
            biased;
            report = warm.then(|()| self.report(recipients)) => report,
            () = self.cut.cancelled() => None,
        };
        if let Some(report) = report {
            metrics::counter!("posthorn_router_routed_total").increment(1);
            leased.report(Report::Route(report));
        }
    }

    /// `None`: the directory is away.
    async fn report(&self, recipients: Recipients) -> Option<RouteReport> {
        let begun = Instant::now();
        let decided = self.router.decide(&recipients.asked).await;
        metrics::histogram!("posthorn_router_decision_seconds").record(begun.elapsed().as_secs_f64());
        match decided {
            Ok(decided) => {
                tracing::debug!(?decided, "routed");
                Some(recipients.report(decided))
            }
            Err(directory::Error::Unavailable(reason)) => {
                tracing::warn!(%reason, "the directory is away: given back");
                self.directory_away.store(true, Ordering::Relaxed);
                None
            }
            Err(reason) => {
                tracing::error!(%reason, "put off");
                let status = Status::new(451, EnhancedStatus::new(4, 3, 0), "The directory cannot answer");
                Some(recipients.put_off(&status))
            }
        }
    }
}

fn span_of(leased: &Leased) -> tracing::Span {
    let message_id = leased.message_id().map(tracing::field::display);
    let span = tracing::info_span!("route", message_id, recipients = leased.item.recipients.len());
    trace::link(&span, &leased.item.traceparent);
    span
}
