//! How a connection comes to its end, and what is told of recipients that were still waiting then.

use posthorn_mail::{EnhancedStatus, Status};

use super::Reply;

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// QUIT was said.
    Quit,
    /// The server has our own name: mail would go in circles (RFC 5321 §5.1).
    Loop(Status),
    /// The server refused to go on (greeting, EHLO, 421): its words.
    Refused(Status),
    /// The connection broke, or was silent for too long, or what came was no SMTP.
    Lost(Status),
}

impl Ending {
    /// What to tell of recipients that were still waiting.
    pub fn status(&self) -> Status {
        match self {
            Self::Quit => unavailable("the connection was closed"),
            Self::Loop(status) | Self::Refused(status) | Self::Lost(status) => status.clone(),
        }
    }
}

/// RFC 3463 §3.5: a bad connection.
pub(super) fn unavailable(text: impl Into<String>) -> Status {
    Status::new(451, EnhancedStatus::new(4, 4, 2), text)
}

/// RFC 3463 §3.6: other protocol trouble.
pub(super) fn protocol_error(text: String) -> Status {
    Status::new(451, EnhancedStatus::new(4, 5, 0), text)
}

pub(super) fn said_too_much() -> Status {
    protocol_error("the server said more than it was asked".to_owned())
}

pub(super) fn out_of_place(reply: &Reply) -> Status {
    let code = reply.code();
    protocol_error(format!("the server answered {code} where that has no meaning: {}", reply.status().text()))
}
