//! The gRPC services: decode, call, encode. No decisions.

mod queue;
mod spool;
mod trace;
mod work;

pub(crate) use queue::Queue;
pub(crate) use spool::Spool;
pub(crate) use trace::Trace;
pub(crate) use work::Work;

/// The largest message of the internal services: batches carry contents.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024 * 1024;
