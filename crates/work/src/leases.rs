//! What is held of the queue's leases: which batches are open, which reports wait to be recorded. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthorn_api::work::v1::{Extend, ItemReport, ReleasedItem, Report, item_report};

use crate::Held;
use crate::leased::Ended;

/// No lease is extended more often than this, however short it is.
const EXTEND_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// A report that holds so many answers for recipients takes no more items, so that it stays far below the largest
/// message.
const ANSWERS_A_REPORT: usize = 50_000;

#[derive(Debug)]
struct Lease {
    /// Items that are neither recorded nor given back.
    open: u32,
    length: Duration,
    extend_at: Instant,
    end: LeaseEnd,
}

/// When a lease ends unless it is extended again; its holders see when it was.
#[derive(Debug, Clone)]
pub(crate) struct LeaseEnd {
    began: Instant,
    /// Milliseconds from then on.
    length: Arc<AtomicU64>,
}

impl LeaseEnd {
    fn after(length: Duration, began: Instant) -> Self {
        Self { began, length: Arc::new(AtomicU64::new(length.as_millis() as u64)) }
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.began + Duration::from_millis(self.length.load(Ordering::Relaxed)) <= now
    }

    fn move_to(&self, end: Instant) {
        let length = end.saturating_duration_since(self.began);
        self.length.store(length.as_millis() as u64, Ordering::Relaxed);
    }
}

/// The open batches and unrecorded reports of a worker.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    open: HashMap<Bytes, Lease>,
    items: u32,
    /// When a lease is next to be extended, or earlier: that of a batch that has ended stays until it has come.
    extend_at: Option<Instant>,
    unrecorded: BTreeMap<u64, Report>,
    last_report: u64,
}

impl Leases {
    /// A batch came.
    pub(crate) fn begin(&mut self, token: Bytes, items: usize, length: Duration, now: Instant) -> LeaseEnd {
        let (items, end) = (items as u32, LeaseEnd::after(length, now));
        if items > 0 {
            let extend_at = now + pause(length);
            self.open.insert(token, Lease { open: items, length, extend_at, end: end.clone() });
            self.items += items;
            self.extend_at = Some(self.extend_at.map_or(extend_at, |first| first.min(extend_at)));
        }
        end
    }

    /// Items have ended; returns what the queue is to be told: reports, which wait to be recorded from now on, and items
    /// to give back.
    pub(crate) fn end(&mut self, ended: impl Iterator<Item = Ended>) -> (Vec<Report>, Vec<ReleasedItem>) {
        let (mut reports, mut back) = (Vec::new(), Vec::new());
        let (mut items, mut answers) = (Vec::new(), 0);
        for ended in ended {
            match ended {
                Ended::Reported(item) => {
                    answers += answers_in(&item);
                    items.push(item);
                    if answers >= ANSWERS_A_REPORT {
                        reports.push(self.report(std::mem::take(&mut items)));
                        answers = 0;
                    }
                }
                Ended::GivenBack(item) => {
                    self.item_ended(&item.token);
                    back.push(item);
                }
                Ended::Lost(token) => self.item_ended(&token),
            }
        }
        if !items.is_empty() {
            reports.push(self.report(items));
        }
        (reports, back)
    }

    fn report(&mut self, items: Vec<ItemReport>) -> Report {
        self.last_report += 1;
        let report = Report { report_id: self.last_report, items };
        self.unrecorded.insert(report.report_id, report.clone());
        report
    }

    /// The queue has recorded a report.
    pub(crate) fn recorded(&mut self, report_id: u64) {
        let items = self.unrecorded.remove(&report_id).map(|report| report.items).unwrap_or_default();
        items.iter().for_each(|item| self.item_ended(&item.token));
    }

    /// Reports to be told anew on a new connection.
    pub(crate) fn unrecorded(&self) -> impl Iterator<Item = &Report> {
        self.unrecorded.values()
    }

    /// What was reported and not recorded is left to the end of its lease; returns how many items that is.
    pub(crate) fn forget_unrecorded(&mut self) -> usize {
        let reports = std::mem::take(&mut self.unrecorded);
        let items = reports.values().flat_map(|report| &report.items);
        items.map(|item| self.item_ended(&item.token)).count()
    }

    fn item_ended(&mut self, token: &Bytes) {
        let Some(lease) = self.open.get_mut(token) else { return };
        lease.open -= 1;
        self.items -= 1;
        if lease.open == 0 {
            self.open.remove(token);
        }
    }

    /// How much is held, when so many batches have been asked for.
    pub(crate) fn held(&self, asked: u32) -> Held {
        Held { batches: self.open.len() as u32, items: self.items, asked }
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When to call [`Leases::extend`].
    pub(crate) fn extend_at(&self) -> Option<Instant> {
        self.extend_at
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
        self.extend_at = self.open.values().map(|lease| lease.extend_at).min();
        (!tokens.is_empty()).then_some(Extend { tokens })
    }
}

/// How long after a lease began, or was extended, it is extended again: early enough for a second try.
fn pause(length: Duration) -> Duration {
    (length / 3).max(EXTEND_AT_MOST_EVERY)
}

fn answers_in(item: &ItemReport) -> usize {
    match &item.report {
        Some(item_report::Report::Route(route)) => route.results.iter().map(|r| r.targets.len()).sum(),
        Some(item_report::Report::Delivery(delivery)) => delivery.recipients.len(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use posthorn_api::work::v1::{DeliveryReport, RecipientOutcome};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn token(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    fn reported(name: &'static str, answers: usize) -> Ended {
        let report = DeliveryReport { recipients: vec![RecipientOutcome::default(); answers] };
        let report = Some(item_report::Report::Delivery(report));
        Ended::Reported(ItemReport { token: token(name), report, ..ItemReport::default() })
    }

    fn back(name: &'static str) -> Ended {
        Ended::GivenBack(ReleasedItem { token: token(name), ..ReleasedItem::default() })
    }

    /// Batches and items.
    fn held(leases: &Leases) -> (u32, u32) {
        let held = leases.held(0);
        (held.batches, held.items)
    }

    #[test]
    fn a_batch_ends_when_all_its_items_are_recorded_or_given_back() {
        let now = Instant::now();
        let mut leases = Leases::default();
        leases.begin(token("a"), 4, MINUTE, now);
        leases.begin(token("b"), 1, MINUTE, now);
        leases.begin(token("empty"), 0, MINUTE, now);
        assert_eq!(held(&leases), (2, 5));
        let (first, _) = leases.end([reported("a", 1), reported("b", 1)].into_iter());
        let (second, given_back) =
            leases.end([reported("a", 1), back("a"), Ended::Lost(token("a"))].into_iter());
        assert_eq!((first.len(), second.len(), given_back.len()), (1, 1, 1));
        assert_eq!((leases.unrecorded().count(), held(&leases)), (2, (2, 3)));
        leases.recorded(second[0].report_id);
        assert_eq!(held(&leases), (2, 2));
        leases.recorded(first[0].report_id);
        leases.recorded(first[0].report_id);
        assert_eq!(held(&leases), (0, 0), "an answer to nothing changes nothing");
        assert!(leases.is_empty() && leases.unrecorded().next().is_none());
    }

    #[test]
    fn leases_are_extended_at_a_third() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut leases = Leases::default();
        let end = leases.begin(token("a"), 1, MINUTE, now);
        assert_eq!(leases.extend_at(), Some(now + 20 * second));
        assert_eq!(leases.extend(now + 19 * second), None);
        leases.begin(token("b"), 1, MINUTE, now + 10 * second);
        assert_eq!(leases.extend(now + 20 * second).unwrap().tokens, [token("a")]);
        assert_eq!(leases.extend_at(), Some(now + 30 * second));
        assert_eq!(leases.extend(now + 30 * second).unwrap().tokens, [token("b")]);
        assert_eq!(leases.extend_at(), Some(now + 40 * second));
        assert!(!end.is_over(now + 79 * second) && end.is_over(now + 80 * second));
        assert!(leases.extend(now + 100 * second).is_some());
        assert!(end.is_over(now + 100 * second), "a lease that has ended does not come back");
    }

    #[test]
    fn what_is_no_longer_held_is_extended_no_more() {
        let now = Instant::now();
        let mut leases = Leases::default();
        leases.begin(token("a"), 2, MINUTE, now);
        leases.end([Ended::Lost(token("a")), reported("a", 1)].into_iter());
        assert_eq!((leases.forget_unrecorded(), held(&leases)), (1, (0, 0)));
        assert_eq!((leases.extend(now + MINUTE), leases.extend_at()), (None, None));
    }

    #[test]
    fn what_is_ready_goes_in_one_report_unless_that_were_too_large() {
        let mut leases = Leases::default();
        let (reports, _) = leases.end((0..100).map(|_| reported("a", 1)));
        assert_eq!(reports.len(), 1);
        let (reports, _) = leases.end((0..120).map(|_| reported("a", 1000)));
        assert_eq!(reports.iter().map(|report| report.items.len()).collect::<Vec<_>>(), [50, 50, 20]);
    }
}
