#![doc = include_str!("../README.md")]

mod leased;
mod leases;
mod link;
mod links;
mod session;
mod share;

pub use leased::{Batch, Kept, Leased};
use posthorn_api::work::v1::WorkKind;
use posthorn_service::{Need, Replicas};
use tokio_util::sync::CancellationToken;

/// Above tonic's default of 4 MiB: batches carry small contents, and a message may have thousands of recipients.
const MESSAGE_BYTES: usize = 64 << 20;

/// What a service does for the queue.
pub trait Work: Send {
    /// The kind of work that it takes.
    const KIND: WorkKind;

    /// The counter of outcomes that came after their lease had ended.
    const STALE: &'static str;

    /// Whether it heeds [`Leased::early`]; if not, it is given nothing early.
    const TAKES_EARLY: bool = false;

    /// The most items in a batch.
    fn max_batch(&self) -> u32;

    /// How many more batches to ask for, by all streams together. Called whenever anything has changed. A stream that
    /// would have none while others idle is asked for one more ([`Held`] may go that far beyond).
    fn ask(&self, held: Held) -> u32;

    /// Begins on a batch, without waiting for anything; the items end when they do.
    fn begin(&mut self, batch: Batch);

    /// Ends when [`Work::ask`] may have a new answer though nothing held has ended. Begun anew whenever that does.
    fn changed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// How much a worker holds. What was reported is held until it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Batches of which an item is held.
    pub batches: u32,
    /// Items.
    pub items: u32,
    /// Batches that were asked for and have not come yet.
    pub asked: u32,
}

/// Works for the queue, by a stream to each of its `replicas`, until told to stop and nothing is held any more. The need
/// is met while one of the streams lives.
///
/// Told to stop, it waits for a queue of which no replica is there only while something is held, and until `patience` is
/// cancelled; what is not recorded by then falls due again when its lease ends.
pub async fn run(
    work: impl Work,
    replicas: Replicas,
    need: &Need,
    shutdown: CancellationToken,
    patience: CancellationToken,
) {
    session::run(work, replicas, need, shutdown, patience).await;
}
