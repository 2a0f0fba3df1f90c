//! How long a client waits.

use std::time::Duration;

/// The time-outs of a session. The defaults are RFC 5321 §4.5.3.2's, and 5 minutes where it names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the greeting.
    pub greeting: Duration,
    /// For the reply to EHLO, HELO, STARTTLS and RSET.
    pub hello: Duration,
    /// For the reply to MAIL.
    pub mail: Duration,
    /// For the reply to RCPT.
    pub rcpt: Duration,
    /// For the 354 after DATA.
    pub data: Duration,
    /// For the network to take a block of what is sent.
    pub block: Duration,
    /// For the reply to the final dot, or to the last BDAT.
    pub final_dot: Duration,
    /// For the reply to QUIT; nothing depends on it.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            greeting: minutes(5),
            hello: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            final_dot: minutes(10),
            quit: Duration::from_secs(5),
        }
    }
}
