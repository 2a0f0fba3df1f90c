//! What goes into a transaction and what comes out of it.

use posthorn_mail::{Body, EnhancedStatus, Envelope, Status};

use super::capabilities::{Capabilities, Size};

/// A message to hand over, but for its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// `body` says what the content is.
    pub envelope: Envelope,
    /// Of the content, in bytes.
    pub size: u64,
    /// The header section holds UTF-8 that only SMTPUTF8 allows.
    pub utf8_headers: bool,
}

/// What became of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The server has taken over.
    Delivered {
        /// The reply to the final dot.
        status: Status,
        /// The server knows DSN and was told what the sender wants to hear.
        dsn_passed_on: bool,
    },
    /// The server does not take it (4yz: not now, another server of the destination may), or what it offers does not
    /// suffice for the message.
    Refused(Status),
    /// The content could not be had. No server is to blame.
    NoContent(Status),
    /// The server can take nothing at present; another server of the destination may. Nothing was transferred.
    NextServer(Status),
    /// The server takes no more recipients in one transaction: to be tried in another one, on this connection.
    NextTransaction,
    /// The final dot was sent and no answer came (RFC 1047).
    Uncertain(Status),
}

/// How the content is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// With dots doubled, and the final dot.
    Data,
    /// `BDAT size LAST`, then the bytes as they are (RFC 3030).
    Bdat,
}

impl Transaction {
    /// Why the server can take this for no recipient at all.
    pub(super) fn unfit(&self, offered: &Capabilities) -> Option<Status> {
        let Self { envelope, size, .. } = self;
        match offered.size {
            // RFC 1870 §6.1
            Size::AtMost(limit) if *size > limit => Some(Status::new(
                552,
                EnhancedStatus::new(5, 3, 4),
                format!("the message has {size} bytes, the server takes {limit}"),
            )),
            _ if self.needs_utf8() && !offered.smtputf8 => Some(no_smtputf8()),
            _ if envelope.body == Body::EightBitMime && !offered.eight_bit_mime => {
                Some(no_conversion("the server does not take 8-bit content"))
            }
            _ if envelope.body == Body::BinaryMime && !offered.binary_mime => {
                Some(no_conversion("the server does not take binary content"))
            }
            _ => None,
        }
    }

    /// Whether SMTPUTF8 is needed whoever the recipients are.
    pub(super) fn needs_utf8(&self) -> bool {
        self.utf8_headers || self.envelope.sender.address().is_some_and(|sender| !sender.is_ascii())
    }
}

/// RFC 6152 §3, RFC 3030 §3: such a message is converted, or returned.
fn no_conversion(text: &str) -> Status {
    Status::new(554, EnhancedStatus::new(5, 6, 3), text)
}

/// RFC 6531 §3.5.
pub(super) fn no_smtputf8() -> Status {
    let text = "the message needs SMTPUTF8, which the server does not offer";
    Status::new(553, EnhancedStatus::new(5, 6, 7), text)
}
