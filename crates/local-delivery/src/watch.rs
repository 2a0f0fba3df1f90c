//! Who waits for changes of which mailbox, in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use crate::store::messages::MessageRow;
use crate::summary::Summary;

/// The mailboxes that are watched, each with the highest mod-sequence that is known of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    accounts: HashMap<Uuid, watch::Sender<Known>>,
    watchers: usize,
}

/// What a watcher is woken by: any difference.
#[derive(Debug, Clone, Default)]
struct Known {
    modseq: i64,
    /// The message with that mod-sequence, where it came alone.
    arrived: Option<Arc<Arrived>>,
    /// Grows when there may be changes without their numbers being known.
    looks: u64,
}

/// A message that has come into a mailbox, with all that a watcher is told of it.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) row: MessageRow,
    pub(crate) summary: Summary,
}

/// A place among those who wait for one mailbox; given up when dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    account: Uuid,
    known: watch::Receiver<Known>,
    watched: Watched,
}

impl Watched {
    /// Begins to wait for `account`; `None` when `limit` are waiting already.
    pub(crate) fn subscribe(&self, account: Uuid, limit: usize) -> Option<Watcher> {
        let mut waiting = self.lock();
        if waiting.watchers >= limit {
            return None;
        }
        waiting.watchers += 1;
        let known = waiting.accounts.entry(account).or_default().subscribe();
        metrics::gauge!("posthorn_local_delivery_watchers").increment(1);
        Some(Watcher { account, known, watched: self.clone() })
    }

    /// Wakes those who wait for these mailboxes; a mod-sequence of 0 is one not known.
    pub(crate) fn wake(&self, changes: impl Iterator<Item = (Uuid, i64)>) {
        let waiting = self.lock();
        if waiting.accounts.is_empty() {
            return;
        }
        for (account, modseq) in changes {
            if let Some(known) = waiting.accounts.get(&account) {
                known.send_if_modified(|known| known.raise(modseq));
            }
        }
    }

    /// Wakes those who wait for a mailbox into which a message came.
    pub(crate) fn wake_by_arrival(&self, account: Uuid, arrived: Arrived) {
        if let Some(known) = self.lock().accounts.get(&account) {
            known.send_if_modified(|known| {
                let news = known.raise(arrived.row.modseq);
                known.arrived = Some(Arc::new(arrived)).filter(|arrived| arrived.row.modseq == known.modseq);
                news
            });
        }
    }

    pub(crate) fn is_watched(&self, account: Uuid) -> bool {
        self.lock().accounts.contains_key(&account)
    }

    /// Wakes all: notices may have been lost.
    pub(crate) fn wake_all(&self) {
        for known in self.lock().accounts.values() {
            known.send_modify(|known| known.looks += 1);
        }
    }

    /// The mailboxes that are watched.
    pub(crate) fn accounts(&self) -> Vec<Uuid> {
        self.lock().accounts.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Takes a mod-sequence over; whether watchers are to look.
    fn raise(&mut self, modseq: i64) -> bool {
        if modseq == 0 {
            self.looks += 1;
            self.arrived = None;
            return true;
        }
        let higher = modseq > self.modseq;
        if higher {
            self.modseq = modseq;
            self.arrived = None;
        }
        higher
    }
}

impl Watcher {
    /// The highest mod-sequence that this process has heard of, committed for sure; 0 when of none; and the message that
    /// has it, if it is known. It is no news any more.
    pub(crate) fn known(&mut self) -> (i64, Option<Arc<Arrived>>) {
        let known = self.known.borrow_and_update();
        (known.modseq, known.arrived.clone())
    }

    /// Waits for news: a change that came after the last call of this or [`Self::known`].
    pub(crate) async fn changed(&mut self) {
        // The sender lives in the map as long as this watcher does.
        let _ = self.known.changed().await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        metrics::gauge!("posthorn_local_delivery_watchers").decrement(1);
        let mut waiting = self.watched.lock();
        waiting.watchers -= 1;
        // This watcher's own receiver still counts.
        if waiting.accounts.get(&self.account).is_some_and(|known| known.receiver_count() <= 1) {
            waiting.accounts.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const A: Uuid = Uuid::from_u128(1);

    #[test]
    fn a_watcher_is_woken_once_by_what_it_has_not_heard_of() {
        let watched = Watched::default();
        let mut watcher = watched.subscribe(A, 9).unwrap();
        assert_eq!(watcher.changed().now_or_never(), None);
        watched.wake([(Uuid::from_u128(2), 5), (A, 5)].into_iter());
        assert_eq!(watcher.changed().now_or_never(), Some(()));
        watched.wake([(A, 5), (A, 4)].into_iter());
        assert_eq!(watcher.changed().now_or_never(), None, "the same news from another side");
        watched.wake([(A, 0)].into_iter());
        assert_eq!(watcher.changed().now_or_never(), Some(()));
        watched.wake_all();
        assert_eq!(watcher.changed().now_or_never(), Some(()));
    }

    #[test]
    fn a_mailbox_is_forgotten_with_its_last_watcher() {
        let watched = Watched::default();
        let (first, second) = (watched.subscribe(A, 2).unwrap(), watched.subscribe(A, 2).unwrap());
        assert!(watched.subscribe(A, 2).is_none(), "over the limit");
        drop(first);
        assert_eq!(watched.accounts(), [A]);
        drop(second);
        assert!(watched.accounts().is_empty());
    }
}
