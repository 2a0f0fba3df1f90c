//! Where a running system is reached.

use std::net::SocketAddr;

/// The doors of a system, however it was started. What can be asked through them stands in `mailbox` and `queue`.
#[derive(Debug, Clone)]
pub struct Api {
    /// SMTP, as servers use it.
    pub smtp: SocketAddr,
    /// The URL of the Submit API.
    pub ingress: String,
    /// The URL of the queue.
    pub queue: String,
    /// The URL of the mailboxes.
    pub local_delivery: String,
}
