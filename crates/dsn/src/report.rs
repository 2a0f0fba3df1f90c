//! What a notice says.

use posthorn_mail::{Address, Body, Domain, EnhancedStatus, MessageId, Status, Words};
use time::OffsetDateTime;

/// What happened to some recipients of one message, for its sender.
///
/// Times are written to the second, in UTC (RFC 5322 §3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The author, `mailer-daemon@...`; never the envelope's sender, which is null (RFC 3464 §2).
    pub from: Address,
    /// The sender of the message that this is about.
    pub to: Address,
    /// Of the notice itself, without angle brackets: `id@host`.
    pub message_id: String,
    /// When it is written.
    pub date: OffsetDateTime,
    /// Who tells: the host name that this system goes by (RFC 3464 §2.2.2).
    pub reporting_mta: Domain,
    /// When the message was accepted.
    pub arrival_date: Option<OffsetDateTime>,
    /// ENVID as the sender gave it, decoded (RFC 3461 §4.4).
    pub envelope_id: Option<String>,
    /// Posthorn's id of the message that this is about, to trace it by.
    pub about: Option<MessageId>,
    /// Whose fate is told; at least one.
    pub recipients: Vec<RecipientReport>,
    /// What comes back of the message.
    pub returned: Returned,
}

/// What happened to one recipient (RFC 3464 §2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientReport {
    /// The address that the attempt was for.
    pub final_recipient: Address,
    /// ORCPT as the sender gave it, decoded: `type;address`.
    pub original_recipient: Option<String>,
    /// What was done.
    pub action: Action,
    /// Why, as a code.
    pub status: EnhancedStatus,
    /// The words of the server that refused, deferred or took it, or Posthorn's own.
    pub diagnostic: Option<Status>,
    /// The host that was tried; in the fields, only where it spoke the words.
    pub remote_mta: Option<String>,
    /// When it was last tried.
    pub last_attempt: Option<OffsetDateTime>,
    /// For delays: when it is given up.
    pub will_retry_until: Option<OffsetDateTime>,
}

impl RecipientReport {
    /// A report that says no more than what was done and why.
    pub fn new(final_recipient: Address, action: Action, status: EnhancedStatus) -> Self {
        Self {
            final_recipient,
            original_recipient: None,
            action,
            status,
            diagnostic: None,
            remote_mta: None,
            last_attempt: None,
            will_retry_until: None,
        }
    }

    /// Whether the diagnostic is what a server said.
    pub(crate) fn is_quoted(&self) -> bool {
        self.diagnostic.as_ref().is_some_and(|status| status.words() != Words::Own)
    }
}

/// What was done about a recipient (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Given up.
    Failed,
    /// Not yet; still tried.
    Delayed,
    /// In the mailbox.
    Delivered,
    /// Handed to a server that will not tell what becomes of it.
    Relayed,
    /// Sent on to the members of a list; their failures are told to others.
    Expanded,
}

/// What comes back of the message (RET, RFC 3461 §4.3; the caller decides).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// All of it, with CRLF line ends; written as its headers when no server could carry it.
    Full(Vec<u8>),
    /// Its header section; what follows the first empty line is left out.
    Headers(Vec<u8>),
    /// Nothing.
    None,
}

impl Report {
    /// What the bytes hold: BODY of the envelope that carries them (RFC 6152).
    pub fn body(&self) -> Body {
        match &self.returned {
            Returned::Full(content) if crate::returned::may_travel(content) && !content.is_ascii() => {
                Body::EightBitMime
            }
            _ => Body::SevenBit,
        }
    }

    /// The notice as a message of RFC 5322.
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::write::report(self)
    }

    /// Reads a notice, Posthorn's own or another's.
    ///
    /// Diagnostic codes of other kinds than `smtp` are left out, and of the first part nothing is read.
    ///
    /// # Errors
    ///
    /// When it is no `multipart/report` with a delivery status in it, or a required field is missing or malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        crate::parse::report(bytes)
    }
}

/// Why bytes are no notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a message at all, or one of another kind.
    #[error("the message is no delivery status notification")]
    NotAReport,
    /// A required field or header is not there.
    #[error("the notice has no {0}")]
    Missing(&'static str),
    /// A field or header does not hold what it must.
    #[error("the notice's {0} is malformed")]
    Malformed(&'static str),
}
