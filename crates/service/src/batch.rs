//! Natural batching (R7): what arrives while the last batch is under way goes into the next one. Nothing waits for a
//! timer, so that on an idle system a batch of one leaves at once.

use tokio::sync::{Mutex, mpsc};

/// The next item, and all that wait behind it until `is_full` says of one that there is room for no more. `None` when
/// nothing more will come.
///
/// Of several that gather from one channel, those that are free queue up for its lock, and the first item takes just
/// one of them.
pub async fn gather<T>(
    waiting: &Mutex<mpsc::Receiver<T>>,
    mut is_full: impl FnMut(&T) -> bool,
) -> Option<Vec<T>> {
    let mut waiting = waiting.lock().await;
    let first = waiting.recv().await?;
    let mut full = is_full(&first);
    let mut batch = vec![first];
    while !full && let Ok(next) = waiting.try_recv() {
        full = is_full(&next);
        batch.push(next);
    }
    Some(batch)
}
