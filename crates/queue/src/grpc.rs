//! The gRPC services: decode, call, encode. No decisions.

mod spool;
mod work;

pub(crate) use spool::Spool;
pub(crate) use work::Work;

/// The largest message of the internal services: batches carry contents.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024 * 1024;
