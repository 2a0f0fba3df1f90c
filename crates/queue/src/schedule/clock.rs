//! The schedule's clock: that of Redis, kept by this process's monotonic one.
//!
//! Replicas whose clocks differ would take each other's leases for ended, and a clock that is set back would hold work
//! up for as long. So every time on its way into Redis is moved by how far this machine's clock is off, and back on its
//! way out.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use time::OffsetDateTime;

/// What Redis said its time was, and when that was; before it has said anything, the clocks are taken to agree.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<(Instant, i64)>>);

/// Clocks that differ by less, in milliseconds, agree: what is measured is the network, too.
const AGREE: i64 = 100;

impl Clock {
    /// Redis has said what its time is, in milliseconds since 1970.
    pub(super) fn set(&self, redis: i64) {
        *self.known() = Some((Instant::now(), redis));
    }

    /// A time of this machine as the schedule's, in milliseconds since 1970.
    pub(super) fn millis(&self, at: OffsetDateTime) -> i64 {
        millis(at).saturating_add(self.ahead())
    }

    /// A time of the schedule as this machine's.
    pub(super) fn time(&self, millis: i64) -> Option<OffsetDateTime> {
        let millis = i128::from(millis) - i128::from(self.ahead());
        OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000).ok()
    }

    fn ahead(&self) -> i64 {
        match *self.known() {
            Some((when, redis)) => {
                ahead(redis + when.elapsed().as_millis() as i64, OffsetDateTime::now_utc())
            }
            None => 0,
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<(Instant, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far Redis is ahead of this machine.
fn ahead(redis: i64, here: OffsetDateTime) -> i64 {
    let ahead = redis - millis(here);
    if ahead.abs() < AGREE { 0 } else { ahead }
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn clocks_agree_or_differ() {
        let here = OffsetDateTime::UNIX_EPOCH + time::Duration::hours(2);
        for (redis, off) in
            [(2 * HOUR, 0), (2 * HOUR + 99, 0), (2 * HOUR - 99, 0), (3 * HOUR, HOUR), (HOUR, -HOUR)]
        {
            assert_eq!(ahead(redis, here), off, "{redis}");
        }
    }

    #[test]
    fn times_go_there_and_back() {
        let clock = Clock::default();
        let now = OffsetDateTime::from_unix_timestamp(OffsetDateTime::now_utc().unix_timestamp()).unwrap();
        assert_eq!(clock.time(clock.millis(now)), Some(now), "nothing is known");
        clock.set(millis(OffsetDateTime::now_utc()) + HOUR);
        assert!((clock.millis(now) - millis(now) - HOUR).abs() < 5000);
        let back = clock.time(clock.millis(now)).unwrap();
        assert!((back - now).abs() < time::Duration::seconds(5));
    }
}
