//! How much of messages may be in memory on their way in, all sessions and calls together (R11).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The octets that there are. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    limit: usize,
    taken: Arc<AtomicUsize>,
}

/// Nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent;

/// What one message has of them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    octets: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, taken: Arc::default() }
    }

    /// A share of nothing, which may grow.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), octets: 0 }
    }
}

impl Share {
    /// Takes more, if there is as much.
    pub(crate) fn grow(&mut self, by: usize) -> Result<(), Spent> {
        self.hold(self.octets.saturating_add(by))
    }

    /// Takes more or gives back, until it is so much; as it was where there is not enough.
    pub(crate) fn hold(&mut self, octets: usize) -> Result<(), Spent> {
        self.hold_of(self.budget.limit, octets).inspect_err(|Spent| {
            metrics::counter!("posthorn_ingress_memory_spent_total").increment(1);
        })
    }

    /// The same for what is good to have, but not needed: half of the budget is left to others.
    pub(crate) fn hold_spare(&mut self, octets: usize) -> Result<(), Spent> {
        self.hold_of(self.budget.limit / 2, octets)
    }

    fn hold_of(&mut self, limit: usize, octets: usize) -> Result<(), Spent> {
        if octets > self.octets {
            let more = octets - self.octets;
            let grown = |taken: usize| taken.checked_add(more).filter(|taken| *taken <= limit);
            let taken = &self.budget.taken;
            taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| Spent)?;
        } else {
            self.budget.taken.fetch_sub(self.octets - octets, Ordering::Relaxed);
        }
        self.octets = octets;
        Ok(())
    }

    /// Gives all back.
    pub(crate) fn give_back(&mut self) {
        self.budget.taken.fetch_sub(std::mem::take(&mut self.octets), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_has_the_others_have_not() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert_eq!((one.grow(6), other.grow(5), other.grow(4)), (Ok(()), Err(Spent), Ok(())));
        assert_eq!((one.hold(7), one.hold(2), other.hold(8)), (Err(Spent), Ok(()), Ok(())));
        drop(one);
        assert_eq!((other.hold(10), other.grow(1), other.grow(usize::MAX)), (Ok(()), Err(Spent), Err(Spent)));
        assert_eq!(other.hold_spare(5), Ok(()));
        assert_eq!((other.hold_spare(6), other.hold(6)), (Err(Spent), Ok(())));
        other.give_back();
        assert_eq!(budget.share().grow(10), Ok(()));
        assert_eq!(budget.share().grow(10), Ok(()));
    }
}
