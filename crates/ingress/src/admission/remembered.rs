//! What the router has said of addresses, as long as it holds.
//!
//! An answer may be older than a change of the directory that is told while it is under way: the generation is noted
//! before the router is asked, and the answer is kept only where it is still the same. While a replica of the router
//! does not tell of changes, nothing is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use moka::sync::Cache;

use super::Known;

#[derive(Debug)]
pub(crate) struct Remembered {
    said: Cache<String, Said>,
    /// How many times all was forgotten.
    generation: AtomicU64,
    /// Replicas of the router that do not tell of changes.
    silent: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Said {
    known: Arc<Known>,
    until: Instant,
    generation: Generation,
}

/// What is older has been forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

/// As long as there is one of these, nothing is kept.
#[derive(Debug)]
pub(crate) struct Silence(Arc<Remembered>);

impl Remembered {
    /// Of at most so many addresses.
    pub(crate) fn new(addresses: u64) -> Self {
        Self { said: Cache::new(addresses), generation: AtomicU64::new(0), silent: AtomicUsize::new(0) }
    }

    /// To be noted before the router is asked for what is to be kept.
    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::SeqCst))
    }

    pub(crate) fn get(&self, address: &str, now: Instant) -> Option<Arc<Known>> {
        let said = self.said.get(address)?;
        (said.generation == self.generation() && now < said.until).then_some(said.known)
    }

    /// Keeps what the router said when it was asked at this moment, for as long as it said.
    pub(crate) fn keep(&self, (asked, at): (Generation, Instant), address: String, known: &Arc<Known>) {
        if !known.good_for.is_zero() && self.silent.load(Ordering::SeqCst) == 0 {
            // Of a generation that is over, it counts for nothing.
            let said = Said { known: known.clone(), until: at + known.good_for, generation: asked };
            self.said.insert(address, said);
        }
    }

    /// The directory has changed.
    pub(crate) fn forget(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Somebody does not tell of changes, until this is dropped.
    pub(crate) fn silence(self: &Arc<Self>) -> Silence {
        self.silent.fetch_add(1, Ordering::SeqCst);
        self.forget();
        Silence(self.clone())
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // What was asked meanwhile is not kept either.
        self.0.forget();
        self.0.silent.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Place;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn known(good_for: Duration) -> Arc<Known> {
        Arc::new(Known { place: Place::Local, tenant: "t".into(), target: None, good_for })
    }

    fn remembered() -> (Arc<Remembered>, Instant) {
        (Arc::new(Remembered::new(100)), Instant::now())
    }

    fn is_kept(remembered: &Remembered, now: Instant) -> bool {
        remembered.get("alice", now).is_some()
    }

    #[test]
    fn an_answer_is_kept_for_as_long_as_it_says() {
        let (remembered, now) = remembered();
        remembered.keep((remembered.generation(), now), "alice".into(), &known(Duration::ZERO));
        assert!(!is_kept(&remembered, now));
        remembered.keep((remembered.generation(), now), "alice".into(), &known(HOUR));
        assert!(is_kept(&remembered, now + HOUR / 2));
        assert!(!is_kept(&remembered, now + HOUR));
    }

    #[test]
    fn a_change_is_the_end_of_what_was_said_before_and_of_what_was_under_way() {
        let (remembered, now) = remembered();
        let asked = remembered.generation();
        remembered.keep((asked, now), "alice".into(), &known(HOUR));
        remembered.forget();
        assert!(!is_kept(&remembered, now));
        remembered.keep((asked, now), "alice".into(), &known(HOUR));
        assert!(!is_kept(&remembered, now));
    }

    #[test]
    fn nothing_is_kept_while_somebody_is_silent() {
        let (remembered, now) = remembered();
        remembered.keep((remembered.generation(), now), "alice".into(), &known(HOUR));
        let (one, other) = (remembered.silence(), remembered.silence());
        assert!(!is_kept(&remembered, now));
        drop(one);
        let asked = remembered.generation();
        remembered.keep((asked, now), "alice".into(), &known(HOUR));
        assert!(!is_kept(&remembered, now));
        drop(other);
        remembered.keep((asked, now), "alice".into(), &known(HOUR));
        assert!(!is_kept(&remembered, now), "it was asked in silence");
        remembered.keep((remembered.generation(), now), "alice".into(), &known(HOUR));
        assert!(is_kept(&remembered, now));
    }
}
