//! The work: batches of items from the queue, written as they gather, outcomes back.
//!
//! ```text
//!  queue ──batch──▶ jobs ──what has gathered──▶ writers (one transaction at a time each) ──outcomes──▶ queue
//! ```

mod item;
mod writer;

use std::sync::Arc;

use posthorn_api::work::v1::WorkKind;
use posthorn_database::Standing;
use posthorn_service::{Error, Need, Process, Replicas, wait_for};
use posthorn_work::{Batch, Held, Leased};
use tokio::sync::{Mutex, mpsc};

use crate::config::Work;
use crate::notify::Changed;
use crate::store;
use writer::Writer;

/// Where the items of a batch go: to the writers.
struct Jobs {
    config: Work,
    pending: mpsc::Sender<Leased>,
}

impl posthorn_work::Work for Jobs {
    const KIND: WorkKind = WorkKind::Local;
    const STALE: &'static str = "posthorn_local_delivery_stale_outcomes_total";
    const TAKES_EARLY: bool = true;

    fn max_batch(&self) -> u32 {
        self.config.max_batch
    }

    fn ask(&self, held: Held) -> u32 {
        self.config.credits.saturating_sub(held.batches + held.asked)
    }

    fn begin(&mut self, batch: Batch) {
        let items = batch.items.into_iter();
        // What there is no room for is dropped, which gives it back.
        let back = items.filter_map(|item| self.pending.try_send(item).err()).count();
        if back > 0 {
            tracing::warn!(items = back, "more came than there is room for: given back");
        }
    }
}

/// Waits for the store, then does local work until the process is told to stop and everything in hand is recorded or
/// given back.
pub(crate) async fn run(
    queue: Replicas,
    (standing, early): (Arc<Standing>, Arc<Standing>),
    changed: Changed,
    config: Work,
    process: Process,
    needs: (Need, Need),
) -> Result<(), Error> {
    let (postgres, stream) = needs;
    // It owns what it uses: of a closure that borrows, the compiler cannot tell that the waiting is `Send`.
    let asked = standing.clone();
    let schema = move || store::answers(asked.clone());
    if wait_for(&postgres, &process.shutdown, schema).await.is_none() {
        return Ok(());
    }
    // The credits, and what comes beyond them while queues come and go.
    let room = (config.credits * config.max_batch) as usize * 2;
    let (jobs, pending) = mpsc::channel(room);
    let pending = Arc::new(Mutex::new(pending));
    let mut writers = tokio::task::JoinSet::new();
    let looking = Arc::new(Mutex::new(()));
    for _ in 0..config.writers {
        let writer = Writer {
            standing: standing.clone(),
            early: early.clone(),
            changed: changed.clone(),
            postgres: postgres.clone(),
            shutdown: process.shutdown.clone(),
            max_copies: config.max_copies,
            max_items: config.max_batch as usize,
            attempts: config.attempts,
            patience: config.patience,
            looking: looking.clone(),
        };
        writers.spawn(Arc::new(writer).run(Arc::clone(&pending)));
    }
    let jobs = Jobs { config, pending: jobs };
    // A queue that is away is not waited for: a delivery that was made is not made again.
    let (shutdown, patience) = (process.shutdown.clone(), process.shutdown.clone());
    tokio::select! {
        () = posthorn_work::run(jobs, queue, &stream, shutdown, patience) => {}
        // Writers end after the jobs. One that panicked holds jobs that nobody will end.
        _ = writers.join_next() => {
            process.shutdown.cancel();
            return Err(Error::fatal("a writer has ended before its time"));
        }
    }
    // The jobs' sender is dropped: the writers find no more and end.
    while writers.join_next().await.is_some() {}
    Ok(())
}
