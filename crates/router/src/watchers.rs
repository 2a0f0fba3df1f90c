//! Who keeps what the router said, and is told when the directory changes.
//!
//! A change is answered only when they have forgotten: whoever makes one sees it at once, at every door.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long a change waits for those who do not confirm it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The last change that each of them has confirmed.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    confirmed: watch::Sender<BTreeMap<u64, u64>>,
    so_far: AtomicU64,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    all: Arc<Watchers>,
    number: u64,
}

impl Watchers {
    /// One more, who keeps nothing that is older than this change.
    pub(crate) fn enter(self: &Arc<Self>, generation: u64) -> Watcher {
        let watcher = Watcher { all: self.clone(), number: self.so_far.fetch_add(1, Ordering::Relaxed) };
        watcher.confirm(generation);
        watcher
    }

    /// Waits until all have confirmed this change, but not for long: who does not confirm it is not waited for again
    /// until it does.
    pub(crate) async fn confirm(&self, generation: u64) {
        let mut confirmed = self.confirmed.subscribe();
        let by_all = confirmed.wait_for(|confirmed| confirmed.values().all(|last| *last >= generation));
        if tokio::time::timeout(PATIENCE, by_all).await.is_err() {
            tracing::warn!("a change of the directory is not confirmed by all who keep answers");
            self.confirmed.send_modify(|confirmed| confirmed.retain(|_, last| *last >= generation));
        }
    }
}

impl Watcher {
    /// It has forgotten all that is older than this change.
    pub(crate) fn confirm(&self, generation: u64) {
        self.all.confirmed.send_modify(|confirmed| {
            confirmed.insert(self.number, generation);
        });
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.all.confirmed.send_modify(|confirmed| {
            confirmed.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt as _, poll};

    use super::*;

    #[tokio::test]
    async fn a_change_waits_for_those_who_watch() {
        let watchers = Arc::new(Watchers::default());
        assert!(watchers.confirm(1).now_or_never().is_some(), "nobody watches");
        let (one, other) = (watchers.enter(1), watchers.enter(1));
        assert!(watchers.confirm(1).now_or_never().is_some(), "they came after it");
        let mut change = pin!(watchers.confirm(2));
        assert!(poll!(&mut change).is_pending());
        one.confirm(2);
        assert!(poll!(&mut change).is_pending());
        other.confirm(3);
        change.await;
        let mut change = pin!(watchers.confirm(3));
        assert!(poll!(&mut change).is_pending());
        drop(one);
        change.await;
    }

    #[tokio::test]
    async fn who_does_not_confirm_is_not_waited_for_again() {
        let watchers = Arc::new(Watchers::default());
        let stuck = watchers.enter(0);
        watchers.confirm(1).await;
        assert!(watchers.confirm(2).now_or_never().is_some());
        stuck.confirm(2);
        assert!(watchers.confirm(3).now_or_never().is_none());
    }
}
