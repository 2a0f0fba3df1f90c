//! When the next attempt is, or that there is none: numbers in, a time or an end out.

use std::time::Duration;

use time::OffsetDateTime;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The pauses of the built-in schedule while they grow, each but the first two with jitter. They add up to about
/// 12 hours; after them it is [`STEADY`].
const GROWING: [Duration; 17] = [
    MINUTE,
    Duration::from_secs(5 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(20 * 60),
    Duration::from_secs(40 * 60),
    HOUR,
    HOUR,
    HOUR,
    HOUR,
    HOUR,
    HOUR,
    HOUR,
    HOUR,
    HOUR,
    HOUR,
    HOUR,
    HOUR,
];
const STEADY: Duration = Duration::from_secs(4 * 3600);

/// When to try again, and when no more.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The pauses as configured; empty: the built-in ones.
    pub(crate) schedule: Vec<Duration>,
    /// The pause after the final dot was sent and no answer came.
    pub(crate) uncertain: Duration,
    /// The attempts after which it is enough; 0: no limit.
    pub(crate) attempts: u32,
}

/// What follows an attempt that has not ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again after this time.
    After(Duration),
    /// It is enough.
    GiveUp,
}

/// How an attempt went wrong, as far as it matters for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Put off by the other side, or it could not be reached.
    Deferred,
    /// It may have arrived (RFC 1047): hurry makes duplicates.
    Uncertain,
}

impl Policy {
    /// What follows the `attempts`th attempt (the first is 1) of a message that is given up in `left` from now.
    ///
    /// The last attempt is made at the very end, however the pauses fall. `jitter` is 0.0 to 1.0: pauses of the
    /// built-in schedule shrink or grow with it by a tenth, so that messages that failed together do not come back
    /// together; configured pauses are kept to.
    pub(crate) fn next(&self, miss: Miss, attempts: u32, left: Duration, jitter: f64) -> Next {
        if left.is_zero() || (self.attempts > 0 && attempts >= self.attempts) {
            return Next::GiveUp;
        }
        let pause = match miss {
            Miss::Deferred => self.pause(attempts, jitter),
            Miss::Uncertain => self.uncertain.max(self.pause(attempts, jitter)),
        };
        Next::After(pause.min(left))
    }

    /// When the last attempt is, as far as can be told, of a message that is given up at `end`, where the next attempt
    /// after `attempts` is at `next`.
    pub(crate) fn last(&self, attempts: u32, next: OffsetDateTime, end: OffsetDateTime) -> OffsetDateTime {
        if self.attempts == 0 {
            return end;
        }
        let mut at = next;
        for attempts in attempts + 1..self.attempts {
            at += self.pause(attempts, 0.5);
            if at >= end {
                break;
            }
        }
        at.min(end)
    }

    fn pause(&self, attempts: u32, jitter: f64) -> Duration {
        let at = attempts.saturating_sub(1) as usize;
        if let Some(last) = self.schedule.last() {
            return *self.schedule.get(at).unwrap_or(last);
        }
        let pause = *GROWING.get(at).unwrap_or(&STEADY);
        if at < 2 { pause } else { pause.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOREVER: Duration = Duration::MAX;

    fn built_in() -> Policy {
        Policy { schedule: vec![], uncertain: 15 * MINUTE, attempts: 0 }
    }

    fn seconds(pauses: &[u64]) -> Vec<Duration> {
        pauses.iter().copied().map(Duration::from_secs).collect()
    }

    #[test]
    fn the_built_in_pauses_grow_to_an_hour_then_four() {
        let minutes = |attempts| match built_in().next(Miss::Deferred, attempts, FOREVER, 0.5) {
            Next::After(pause) => pause.as_secs() / 60,
            Next::GiveUp => panic!("gave up"),
        };
        let grown: Vec<_> = (1..=19).map(minutes).collect();
        assert_eq!(grown, [1, 5, 10, 20, 40, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 240, 240]);
        assert!((12 * 60..14 * 60).contains(&grown[..17].iter().sum::<u64>()));
    }

    #[test]
    fn a_configured_list_replaces_them_and_its_last_repeats() {
        let policy = Policy { schedule: seconds(&[2, 2, 4]), ..built_in() };
        for (attempts, pause) in [(1, 2), (2, 2), (3, 4), (4, 4), (100, 4)] {
            for jitter in [0.0, 1.0] {
                assert_eq!(
                    policy.next(Miss::Deferred, attempts, FOREVER, jitter),
                    Next::After(Duration::from_secs(pause))
                );
            }
        }
    }

    #[test]
    fn the_last_attempt_is_at_the_end_and_then_it_is_enough() {
        let policy = Policy { schedule: seconds(&[10]), ..built_in() };
        for (left, next) in [(30, Some(10)), (10, Some(10)), (3, Some(3)), (0, None)] {
            let want = next.map_or(Next::GiveUp, |s| Next::After(Duration::from_secs(s)));
            assert_eq!(policy.next(Miss::Deferred, 1, Duration::from_secs(left), 0.0), want);
        }
    }

    #[test]
    fn the_last_attempt_is_told_ahead() {
        let at = |seconds: u64| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (limit, attempts, last) in
            [(0, 1, 100), (1, 1, 5), (2, 1, 5), (3, 1, 7), (4, 1, 11), (4, 3, 5), (90, 1, 100)]
        {
            let policy = Policy { schedule: seconds(&[2, 2, 4]), attempts: limit, ..built_in() };
            assert_eq!(policy.last(attempts, at(5), at(100)), at(last), "{attempts} of {limit}");
        }
    }

    #[test]
    fn a_number_of_attempts_ends_it_too() {
        let policy = Policy { attempts: 3, ..built_in() };
        let ends: Vec<_> =
            (1..5).map(|n| policy.next(Miss::Deferred, n, FOREVER, 0.0) == Next::GiveUp).collect();
        assert_eq!(ends, [false, false, true, true]);
    }

    #[test]
    fn what_may_have_arrived_waits_longer() {
        for (attempts, minutes) in [(1, 15), (2, 15), (4, 20), (6, 60)] {
            let next = built_in().next(Miss::Uncertain, attempts, FOREVER, 0.5);
            assert_eq!(next, Next::After(minutes * MINUTE), "{attempts}");
        }
    }

    proptest! {
        #[test]
        fn a_pause_never_passes_the_end_and_is_never_nothing(
            schedule in prop::collection::vec(1_u64..100_000, 0..5),
            attempts in 1_u32..10_000,
            left in 0_u64..1_000_000,
            jitter in 0.0..=1.0_f64,
        ) {
            let policy = Policy { schedule: seconds(&schedule), ..built_in() };
            match policy.next(Miss::Deferred, attempts, Duration::from_secs(left), jitter) {
                Next::GiveUp => prop_assert_eq!(left, 0),
                Next::After(pause) => {
                    prop_assert!(pause <= Duration::from_secs(left) && !pause.is_zero());
                }
            }
        }

        #[test]
        fn built_in_pauses_stay_within_a_tenth(attempts in 1_u32..1000, jitter in 0.0..=1.0_f64) {
            let middle = built_in().pause(attempts, 0.5).as_secs_f64();
            let pause = built_in().pause(attempts, jitter).as_secs_f64();
            prop_assert!((pause / middle - 1.0).abs() <= 0.1 + 1e-9);
        }
    }
}
