//! What is held of the queue's leases: which batches are open, which reports wait to be recorded. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthorn_api::work::v1::{Extend, ItemReport, Report};

/// No lease is extended more often than this, however short it is.
const EXTEND_AT_MOST_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Lease {
    /// Items that are neither recorded nor given back.
    open: usize,
    length: Duration,
    extend_at: Instant,
    end: LeaseEnd,
}

/// When a lease ends unless it is extended again; its holders see when it was.
#[derive(Debug, Clone)]
pub(crate) struct LeaseEnd(Arc<Mutex<Instant>>);

impl LeaseEnd {
    fn at(end: Instant) -> Self {
        Self(Arc::new(Mutex::new(end)))
    }

    /// Whether others may have the batch by now: nothing of it may be begun any more.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) <= now
    }

    fn move_to(&self, end: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }
}

/// The open batches and unrecorded reports of a worker.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    open: HashMap<Bytes, Lease>,
    unrecorded: BTreeMap<u64, Report>,
    last_report: u64,
}

impl Leases {
    /// A batch came; `None` when nothing is in it.
    pub(crate) fn begin(
        &mut self,
        token: Bytes,
        items: usize,
        length: Duration,
        now: Instant,
    ) -> Option<LeaseEnd> {
        if items == 0 {
            return None;
        }
        let end = LeaseEnd::at(now + length);
        let lease = Lease { open: items, length, extend_at: now + pause(length), end: end.clone() };
        self.open.insert(token, lease);
        Some(end)
    }

    /// A report of these items, to be sent, and sent again on another connection until it is recorded.
    pub(crate) fn report(&mut self, items: Vec<ItemReport>) -> Report {
        self.last_report += 1;
        let report = Report { report_id: self.last_report, items };
        self.unrecorded.insert(report.report_id, report.clone());
        report
    }

    /// The queue has recorded a report; returns how many batches have ended with it.
    pub(crate) fn recorded(&mut self, report_id: u64) -> u32 {
        let items = self.unrecorded.remove(&report_id).map(|report| report.items).unwrap_or_default();
        items.iter().map(|item| self.item_ended(&item.token)).sum()
    }

    /// An item is given back; returns how many batches have ended with it.
    pub(crate) fn item_ended(&mut self, token: &Bytes) -> u32 {
        let Some(lease) = self.open.get_mut(token) else { return 0 };
        lease.open -= 1;
        if lease.open > 0 {
            return 0;
        }
        self.open.remove(token);
        1
    }

    /// What was to be done for the batch will never be reported: the lease is left to end by itself. Returns how many
    /// batches have ended with it.
    pub(crate) fn forget(&mut self, token: &Bytes) -> u32 {
        u32::from(self.open.remove(token).is_some())
    }

    /// Reports to be sent anew on a new connection.
    pub(crate) fn unrecorded(&self) -> impl Iterator<Item = &Report> {
        self.unrecorded.values()
    }

    /// How many batches are open.
    pub(crate) fn len(&self) -> u32 {
        self.open.len() as u32
    }

    /// Whether nothing is in hand.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When a lease is next to be extended.
    pub(crate) fn extend_at(&self) -> Option<Instant> {
        self.open.values().map(|lease| lease.extend_at).min()
    }

    /// The leases to be extended now; `None` when there are none.
    pub(crate) fn extend(&mut self, now: Instant) -> Option<Extend> {
        let due = self.open.iter_mut().filter(|(_, lease)| lease.extend_at <= now);
        let tokens: Vec<Bytes> = due
            .map(|(token, lease)| {
                lease.extend_at = now + pause(lease.length);
                // One that has ended may be another's by now, whatever the queue makes of this.
                if !lease.end.is_over(now) {
                    lease.end.move_to(now + lease.length);
                }
                token.clone()
            })
            .collect();
        (!tokens.is_empty()).then_some(Extend { tokens })
    }
}

/// How long after a lease began, or was extended, it is extended again.
fn pause(length: Duration) -> Duration {
    (length / 3).max(EXTEND_AT_MOST_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(token: &'static [u8]) -> ItemReport {
        ItemReport { token: Bytes::from_static(token), ..ItemReport::default() }
    }

    #[test]
    fn a_batch_ends_when_all_its_items_are_recorded_or_given_back() {
        let now = Instant::now();
        let mut leases = Leases::default();
        leases.begin(Bytes::from_static(b"a"), 3, Duration::from_secs(60), now);
        leases.begin(Bytes::from_static(b"b"), 1, Duration::from_secs(60), now);
        let first = leases.report(vec![item(b"a"), item(b"b")]);
        let second = leases.report(vec![item(b"a")]);
        assert_eq!(leases.unrecorded().count(), 2);
        assert_eq!(leases.item_ended(&Bytes::from_static(b"a")), 0);
        assert_eq!(leases.recorded(second.report_id), 0);
        assert_eq!(leases.recorded(first.report_id), 2);
        assert_eq!(leases.recorded(first.report_id), 0, "an answer to nothing changes nothing");
        assert!(leases.is_empty() && leases.unrecorded().next().is_none());
    }

    #[test]
    fn leases_are_extended_at_a_third() {
        let now = Instant::now();
        let mut leases = Leases::default();
        let end = leases.begin(Bytes::from_static(b"a"), 1, Duration::from_secs(60), now).unwrap();
        assert_eq!(leases.extend_at(), Some(now + Duration::from_secs(20)));
        assert_eq!(leases.extend(now + Duration::from_secs(19)), None);
        let extend = leases.extend(now + Duration::from_secs(20)).unwrap();
        assert_eq!(extend.tokens, [Bytes::from_static(b"a")]);
        assert_eq!(leases.extend_at(), Some(now + Duration::from_secs(40)));
        assert!(!end.is_over(now + Duration::from_secs(79)) && end.is_over(now + Duration::from_secs(80)));
        assert!(leases.extend(now + Duration::from_secs(100)).is_some());
        assert!(end.is_over(now + Duration::from_secs(100)), "a lease that has ended does not come back");
    }

    #[test]
    fn a_batch_that_is_forgotten_is_extended_no_more() {
        let now = Instant::now();
        let mut leases = Leases::default();
        leases.begin(Bytes::from_static(b"a"), 2, Duration::from_secs(60), now);
        assert_eq!(leases.forget(&Bytes::from_static(b"a")), 1);
        assert_eq!(leases.forget(&Bytes::from_static(b"a")), 0);
        assert_eq!((leases.extend_at(), leases.item_ended(&Bytes::from_static(b"a"))), (None, 0));
    }
}
