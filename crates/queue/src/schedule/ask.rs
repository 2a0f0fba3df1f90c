//! What the schedule is asked, and what it says.

use time::OffsetDateTime;

use super::{Item, Key, Token};

/// What [`super::Schedule::add`] does to items that are in the schedule already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Add {
    /// They are brought forward; what is leased comes again after its outcome.
    Sooner,
    /// They stay as they are, but for what nobody has and is not due before this time: it is brought forward. What
    /// somebody has is due at the end of a lease at the latest.
    IfAbsent { late: OffsetDateTime },
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) now: OffsetDateTime,
    /// The end of the lease.
    pub(crate) until: OffsetDateTime,
    pub(crate) most: u32,
    /// Batches of a lane under way at first; 0: unlimited.
    pub(crate) concurrency: u32,
}

/// What there is for a worker.
#[derive(Debug)]
pub(crate) enum Leasing {
    Batch(Leased),
    /// Nothing is ready; by then something may be.
    Nothing(Option<OffsetDateTime>),
    /// Redis has lost the schedule: it must be filled.
    Empty,
}

/// A leased batch.
#[derive(Debug)]
pub(crate) struct Leased {
    pub(crate) token: Token,
    /// With how often each was leased without an outcome, this time included.
    pub(crate) items: Vec<(Item, u8)>,
}

/// Whether a lease still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It does, and has just been renewed.
    Holds,
    /// Another has the item.
    Superseded,
    /// Redis knows of no lease: it ended, or Redis has lost it.
    Unknown,
}

/// How a lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settle {
    pub(crate) key: Key,
    pub(crate) token: Token,
    pub(crate) then: Then,
}

/// What becomes of an item after its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Done,
    At(OffsetDateTime),
    /// It was not begun: ready at once.
    Back,
}

/// What is learnt of a destination.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Learn {
    Success {
        concurrency: u32,
        max: u32,
    },
    Unavailable {
        concurrency: u32,
        until: OffsetDateTime,
    },
    Suspend,
    Resume,
    /// An operator wants an attempt now.
    Unblock,
}
