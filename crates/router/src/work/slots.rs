//! How many batches to ask the queue for. Pure.

/// Counts what is under way and what was asked for, so that together they never pass the limit.
///
/// A message whose DNS is slow keeps its own place and no more: places of a batch become free one by one.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The most messages under way.
    limit: usize,
    /// The most messages that one credit may bring.
    batch: usize,
    /// The most credits open at once.
    credits: usize,
    open: usize,
    busy: usize,
}

impl Slots {
    pub(crate) fn new(limit: usize, batch: usize, credits: usize) -> Self {
        Self { limit, batch: batch.max(1), credits, open: 0, busy: 0 }
    }

    /// The credits to give now; they count as given.
    pub(crate) fn grant(&mut self) -> u32 {
        let free = self.limit.saturating_sub(self.busy + self.open * self.batch) / self.batch;
        let grant = free.min(self.credits.saturating_sub(self.open));
        self.open += grant;
        u32::try_from(grant).unwrap_or(u32::MAX)
    }

    /// A batch of so many messages came for a credit.
    pub(crate) fn took(&mut self, messages: usize) {
        self.open = self.open.saturating_sub(1);
        self.busy += messages;
    }

    /// So many messages were reported or given back.
    pub(crate) fn finished(&mut self, messages: usize) {
        self.busy = self.busy.saturating_sub(messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_never_bring_more_than_there_is_room_for() {
        let mut slots = Slots::new(350, 100, 8);
        assert_eq!(slots.grant(), 3);
        assert_eq!(slots.grant(), 0, "given once");
        slots.took(100);
        assert_eq!(slots.grant(), 0, "250 left, 200 of them asked for");
        slots.took(10);
        assert_eq!(slots.grant(), 1, "240 left, 100 of them asked for");
        slots.finished(60);
        assert_eq!(slots.grant(), 1, "300 left, 200 of them asked for");
    }

    #[test]
    fn no_more_credits_are_open_than_allowed() {
        let mut slots = Slots::new(10_000, 100, 4);
        assert_eq!(slots.grant(), 4);
        slots.took(100);
        slots.took(1);
        assert_eq!(slots.grant(), 2);
    }
}
