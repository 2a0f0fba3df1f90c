//! Which notification is due: the ages at which a sender is told of a delay, and who wants to be told of what.

use std::time::Duration;

use posthorn_mail::Notify;
use time::OffsetDateTime;

/// How many of `ages` (ascending) a message received at `received_at` has reached by `now`.
pub(crate) fn reached(ages: &[Duration], received_at: OffsetDateTime, now: OffsetDateTime) -> usize {
    ages.iter().take_while(|age| received_at + **age <= now).count()
}

/// When a message that has reached `reached` of `ages` must be looked at next: the next age, or its end.
pub(crate) fn next_look(
    ages: &[Duration],
    received_at: OffsetDateTime,
    reached: usize,
    expires_at: OffsetDateTime,
) -> OffsetDateTime {
    ages.get(reached).map_or(expires_at, |age| (received_at + *age).min(expires_at))
}

/// What can happen to a recipient that its sender may want to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Occasion {
    /// It is in the mailbox, with the next server, or with the members of a list.
    Success,
    /// It was given up.
    Failure,
    /// It is late.
    Delay,
}

impl Occasion {
    /// As in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Delay => "delay",
        }
    }
}

/// Whether a sender who asked for `notify` is told (RFC 3461 §4.1); `None`: the client said nothing.
pub(crate) fn wanted(notify: Option<Notify>, occasion: Occasion) -> bool {
    let notify = notify.unwrap_or(Notify::DEFAULT);
    match occasion {
        Occasion::Success => notify.success(),
        Occasion::Failure => notify.failure(),
        Occasion::Delay => notify.delay(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn hours(n: u64) -> Duration {
        Duration::from_secs(n * 3600)
    }

    #[test]
    fn each_age_is_reached_once() {
        let ages = [hours(4), hours(24)];
        for (age, count) in [(0, 0), (3, 0), (4, 1), (5, 1), (24, 2), (100, 2)] {
            assert_eq!(reached(&ages, T0, T0 + hours(age)), count, "{age} h");
        }
    }

    #[test]
    fn the_next_look_is_at_the_next_age_or_the_end() {
        let ages = [hours(4), hours(24)];
        for (reached, at) in [(0, 4), (1, 24), (2, 120)] {
            assert_eq!(next_look(&ages, T0, reached, T0 + hours(120)), T0 + hours(at));
        }
        assert_eq!(next_look(&ages, T0, 1, T0 + hours(20)), T0 + hours(20));
        assert_eq!(next_look(&[], T0, 0, T0 + hours(20)), T0 + hours(20));
    }

    #[test]
    fn a_sender_hears_what_it_asked_for() {
        use Occasion::{Delay, Failure, Success};
        let on = |success, failure, delay| Some(Notify::On { success, failure, delay });
        for (notify, told) in [
            (None, [false, true, true]),
            (Some(Notify::Never), [false, false, false]),
            (on(true, false, false), [true, false, false]),
            (on(false, true, false), [false, true, false]),
            (on(false, false, true), [false, false, true]),
        ] {
            assert_eq!([Success, Failure, Delay].map(|o| wanted(notify, o)), told, "{notify:?}");
        }
    }
}
