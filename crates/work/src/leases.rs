//! What is held of the queue's leases: which batches are open, which reports wait to be recorded, and which stream tells
//! the queue of it. Pure.

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

/// Tells the streams of a process apart.
pub(crate) type StreamId = u64;

#[derive(Debug)]
struct Lease {
    /// The stream that tells of it: the one it came by, or that one's heir.
    by: StreamId,
    /// Items that are neither recorded nor given back.
    open: u32,
    length: Duration,
    extend_at: Instant,
    end: LeaseEnd,
}

impl Lease {
    /// It is extended now.
    fn extend(&mut self, now: Instant) {
        self.extend_at = now + pause(self.length);
        // One that has ended may be another's by now, whatever the queue makes of this.
        if !self.end.is_over(now) {
            self.end.move_to(now + self.length);
        }
    }
}

#[derive(Debug)]
struct Unrecorded {
    by: StreamId,
    report: Report,
}

/// What a stream is to tell the queue.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// They wait to be recorded from now on.
    pub(crate) reports: Vec<Report>,
    pub(crate) back: Vec<ReleasedItem>,
    pub(crate) extend: Option<Extend>,
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
    /// Open batches, by the stream that tells of them.
    batches: BTreeMap<StreamId, u32>,
    /// When a lease is next to be extended, or earlier: that of a batch that has ended stays until it has come.
    extend_at: Option<Instant>,
    unrecorded: BTreeMap<u64, Unrecorded>,
    last_report: u64,
}

impl Leases {
    /// A batch came, of which a stream tells the queue.
    pub(crate) fn begin(
        &mut self,
        by: StreamId,
        token: Bytes,
        items: usize,
        length: Duration,
        now: Instant,
    ) -> LeaseEnd {
        let (items, end) = (items as u32, LeaseEnd::after(length, now));
        if items > 0 {
            let extend_at = now + pause(length);
            self.open.insert(token, Lease { by, open: items, length, extend_at, end: end.clone() });
            *self.batches.entry(by).or_default() += 1;
            self.items += items;
            self.extend_at = Some(self.extend_at.map_or(extend_at, |first| first.min(extend_at)));
        }
        end
    }

    /// Items have ended; returns what the streams are to tell. What is of no batch that is known, `otherwise` tells.
    pub(crate) fn end(
        &mut self,
        ended: impl Iterator<Item = Ended>,
        otherwise: StreamId,
    ) -> Vec<(StreamId, Told)> {
        let mut by_stream: BTreeMap<StreamId, Vec<Ended>> = BTreeMap::new();
        for ended in ended {
            let by = self.open.get(ended.token()).map_or(otherwise, |lease| lease.by);
            by_stream.entry(by).or_default().push(ended);
        }
        by_stream.into_iter().map(|(by, ended)| (by, self.end_of(by, ended))).collect()
    }

    fn end_of(&mut self, by: StreamId, ended: Vec<Ended>) -> Told {
        let mut told = Told::default();
        let (mut items, mut answers) = (Vec::new(), 0);
        for ended in ended {
            match ended {
                Ended::Reported(item) => {
                    answers += answers_in(&item);
                    items.push(item);
                    if answers >= ANSWERS_A_REPORT {
                        told.reports.push(self.report(by, std::mem::take(&mut items)));
                        answers = 0;
                    }
                }
                Ended::GivenBack(item) => {
                    self.item_ended(&item.token);
                    told.back.push(item);
                }
                Ended::Lost(token) => self.item_ended(&token),
            }
        }
        if !items.is_empty() {
            told.reports.push(self.report(by, items));
        }
        told
    }

    fn report(&mut self, by: StreamId, items: Vec<ItemReport>) -> Report {
        self.last_report += 1;
        let report = Report { report_id: self.last_report, items };
        self.unrecorded.insert(report.report_id, Unrecorded { by, report: report.clone() });
        report
    }

    /// The queue has recorded a report.
    pub(crate) fn recorded(&mut self, report_id: u64) {
        if let Some(Unrecorded { report, .. }) = self.unrecorded.remove(&report_id) {
            report.items.iter().for_each(|item| self.item_ended(&item.token));
        }
    }

    /// A stream tells from now on of what those did that are gone. Returns what it is to tell at once: what was not
    /// recorded, and that the leases go on, since the last word of that may have been lost with the others.
    pub(crate) fn adopt(&mut self, by: StreamId, gone: impl Fn(StreamId) -> bool, now: Instant) -> Told {
        let mut reports = Vec::new();
        for unrecorded in self.unrecorded.values_mut().filter(|unrecorded| gone(unrecorded.by)) {
            unrecorded.by = by;
            reports.push(unrecorded.report.clone());
        }
        let mut tokens = Vec::new();
        for (token, lease) in self.open.iter_mut().filter(|(_, lease)| gone(lease.by)) {
            lease.by = by;
            lease.extend(now);
            tokens.push(token.clone());
        }
        self.batches.retain(|stream, _| !gone(*stream));
        if !tokens.is_empty() {
            *self.batches.entry(by).or_default() += tokens.len() as u32;
        }
        self.extend_at = self.next_extension();
        let extend = (!tokens.is_empty()).then_some(Extend { tokens });
        Told { reports, back: Vec::new(), extend }
    }

    /// What was reported by a stream and not recorded is left to the end of its lease; returns how many items that is.
    pub(crate) fn forget_unrecorded(&mut self, by: StreamId) -> usize {
        let reports: Vec<_> = self.unrecorded.extract_if(.., |_, unrecorded| unrecorded.by == by).collect();
        let items = reports.iter().flat_map(|(_, unrecorded)| &unrecorded.report.items);
        items.map(|item| self.item_ended(&item.token)).count()
    }

    fn item_ended(&mut self, token: &Bytes) {
        let Some(lease) = self.open.get_mut(token) else { return };
        lease.open -= 1;
        self.items -= 1;
        if lease.open > 0 {
            return;
        }
        let by = lease.by;
        self.open.remove(token);
        if let Some(batches) = self.batches.get_mut(&by) {
            *batches -= 1;
            if *batches == 0 {
                self.batches.remove(&by);
            }
        }
    }

    /// How much is held, when so many batches have been asked for.
    pub(crate) fn held(&self, asked: u32) -> Held {
        Held { batches: self.open.len() as u32, items: self.items, asked }
    }

    /// Open batches that a stream tells of.
    pub(crate) fn batches_of(&self, stream: StreamId) -> u32 {
        self.batches.get(&stream).copied().unwrap_or_default()
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When to call [`Leases::extend`].
    pub(crate) fn extend_at(&self) -> Option<Instant> {
        self.extend_at
    }

    fn next_extension(&self) -> Option<Instant> {
        self.open.values().map(|lease| lease.extend_at).min()
    }

    /// The leases to be extended now, and which stream says so.
    pub(crate) fn extend(&mut self, now: Instant) -> BTreeMap<StreamId, Extend> {
        let mut due: BTreeMap<StreamId, Extend> = BTreeMap::new();
        for (token, lease) in self.open.iter_mut().filter(|(_, lease)| lease.extend_at <= now) {
            lease.extend(now);
            due.entry(lease.by).or_default().tokens.push(token.clone());
        }
        self.extend_at = self.next_extension();
        due
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
mod tests;
