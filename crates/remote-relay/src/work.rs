//! The work stream: batches in, outcomes out.
//!
//! ```text
//!  queue ──batch──▶ session ──one task a batch──▶ couriers (one connection at a time each)
//!    ▲                 │  ▲                           │
//!    └──report─────────┘  └───────────ended───────────┘
//! ```
//! The couriers and what is held of the leases outlive a connection to the queue: outcomes found while it was away are
//! reported when it is back.

mod leases;
mod session;

use bytes::Bytes;
use posthorn_api::work::v1::{ItemReport, ReleasedItem};

pub(crate) use leases::LeaseEnd;
pub(crate) use session::Session;

/// What came of an item.
#[derive(Debug)]
pub(crate) enum Ended {
    /// An outcome for each recipient.
    Done(ItemReport),
    /// It was not begun.
    NotBegun(ReleasedItem),
    /// The courier of the batch with this token fell over: what it had not told yet, no one knows.
    Lost(Bytes),
}
