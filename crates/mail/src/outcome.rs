//! How an attempt ended.

use crate::Status;

/// How an attempt to deliver to one recipient ended: a value, not an error; the same over the wire and in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it means for the recipient.
    pub verdict: Verdict,
    /// The server that was talked to; `None` for local deliveries and where none was reached.
    pub remote: Option<RemoteServer>,
}

/// What an attempt means for the recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The recipient has it: in the mailbox, or taken over by the next server.
    Delivered {
        /// The reply to the final dot, or Posthorn's own word.
        status: Status,
        /// The next server supports DSN and was told what the sender asked for (RFC 3461 §5.2.1).
        dsn_passed_on: bool,
    },
    /// Not now.
    Deferred {
        /// Why; 4yz.
        status: Status,
        /// The destination as a whole cannot be reached or said 421.
        destination_unavailable: bool,
    },
    /// Never; 5yz.
    Failed(Status),
    /// The final dot was sent and no answer came (RFC 1047): it may have arrived.
    Uncertain(Status),
    /// The work was for somewhere else: the router is to decide again.
    Reroute(String),
}

/// A server that an attempt talked to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteServer {
    /// As the MX record or the route named it.
    pub host: String,
    /// IP address and port.
    pub address: String,
    /// TLS version and cipher; empty when in the clear.
    pub tls: String,
}
