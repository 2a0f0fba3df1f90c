//! What the relay takes from the queue: a batch a connection.

use posthorn_api::work::v1::WorkKind;
use posthorn_work::{Batch, Held, Work};

use crate::courier::Courier;

impl Work for Courier {
    const KIND: WorkKind = WorkKind::Remote;
    const STALE: &'static str = "posthorn_relay_stale_outcomes_total";

    fn max_batch(&self) -> u32 {
        self.config.max_batch
    }

    fn ask(&self, held: Held) -> u32 {
        metrics::gauge!("posthorn_relay_batches").set(held.batches);
        self.config.connections.saturating_sub(held.batches + held.asked)
    }

    /// Sends a courier with the batch.
    fn begin(&mut self, batch: Batch) {
        tokio::spawn(self.clone().deliver(batch));
    }
}
