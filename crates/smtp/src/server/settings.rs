//! What an operator may choose about a session.

use std::time::Duration;

use posthorn_mail::Address;

/// The limits and names of a session. [`Settings::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the server calls itself in its greeting.
    pub hostname: String,
    /// Whom `RCPT TO:<Postmaster>` without a domain means (RFC 5321 §4.5.1).
    pub postmaster: Address,
    /// Octets of a message's content (RFC 1870).
    pub message_size: u64,
    /// Recipients of a transaction (RFC 5321 §4.5.3.1.8 wants 100 at least).
    pub recipients: usize,
    /// Octets of a command line with its CRLF (RFC 5321 §4.5.3.1.4); MAIL and RCPT get more for their parameters.
    pub command_line: usize,
    /// Octets of a line of content. RFC 5321 §4.5.3.1.6 promises senders no more than 1,000; real mail has more.
    pub text_line: usize,
    /// Replies of 4yz and 5yz without a message delivered between them.
    pub errors: u32,
    /// Commands of a session.
    pub commands: u32,
    /// Transactions of a session.
    pub transactions: u32,
    /// From one command to the end of the next (RFC 5321 §4.5.3.2.7).
    pub command_timeout: Duration,
    /// From one piece of content to the next (RFC 5321 §4.5.3.2.5).
    pub data_timeout: Duration,
    /// From the greeting to the end.
    pub session_timeout: Duration,
    /// TLS is there to be started.
    pub starttls: bool,
}

impl Settings {
    /// The defaults for a server of this name.
    pub fn new(hostname: impl Into<String>, postmaster: Address) -> Self {
        Self {
            hostname: hostname.into(),
            postmaster,
            message_size: 50 << 20,
            recipients: 1_000,
            command_line: 512,
            text_line: 1 << 20,
            errors: 20,
            commands: 100_000,
            transactions: 10_000,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            session_timeout: Duration::from_secs(7_200),
            starttls: false,
        }
    }
}
