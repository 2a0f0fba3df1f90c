//! The queue's clock: that of Redis, kept by this process's monotonic one.
//!
//! Replicas whose clocks differ would take each other's leases for ended, and put off what another has made due; a clock
//! that is set back would hold work up for as long. So all times of the queue, in the schedule and in the ledger, are by
//! one clock, and this machine's is only where it begins. No I/O here.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use time::OffsetDateTime;

/// A time, and when it was.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<(Instant, OffsetDateTime)>);

/// Clocks that differ by less agree: what is measured is the network, too.
const AGREE: time::Duration = time::Duration::milliseconds(100);

impl Clock {
    /// Goes by this machine's clock as it is now, until something else is said.
    pub(crate) fn new(here: OffsetDateTime) -> Self {
        Self(Mutex::new((Instant::now(), here)))
    }

    /// What time it is.
    pub(crate) fn now(&self) -> OffsetDateTime {
        let (when, time) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        time + when.elapsed()
    }

    /// Redis has said that it is this time.
    pub(crate) fn set(&self, redis: OffsetDateTime) {
        if (redis - self.now()).abs() >= AGREE {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), redis);
        }
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn it_goes_by_what_redis_says() {
        let (begin, second) = (OffsetDateTime::UNIX_EPOCH + Duration::days(1), Duration::seconds(1));
        for (off, counts) in [
            (Duration::ZERO, false),
            (Duration::milliseconds(50), false),
            (Duration::milliseconds(-50), false),
            (Duration::HOUR, true),
            (-Duration::HOUR, true),
        ] {
            let clock = Clock::new(begin);
            assert!(clock.now() >= begin && clock.now() < begin + second);
            let said = begin + off;
            clock.set(said);
            let from = if counts { said } else { begin };
            assert!(clock.now() >= from && clock.now() < from + second, "{off}");
        }
    }
}
