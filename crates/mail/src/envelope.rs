//! The envelope: what MAIL and RCPT say.

use crate::{Address, ReversePath};

/// What the content holds (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum Body {
    /// Lines of ASCII.
    #[default]
    SevenBit,
    /// Lines of any octets.
    EightBitMime,
    /// Any octets; goes by BDAT alone.
    BinaryMime,
}

/// How much of the message a failure notice brings back (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its headers.
    Headers,
}

/// When the sender wants to hear of a recipient (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notify {
    /// Not at all.
    Never,
    /// On these occasions; at least one is true.
    On {
        /// The message was delivered.
        success: bool,
        /// It could not be.
        failure: bool,
        /// It is late.
        delay: bool,
    },
}

impl Notify {
    /// What holds when the client says nothing: tell of failures and of delays.
    pub const DEFAULT: Self = Self::On { success: false, failure: true, delay: true };

    /// A delivery is to be reported.
    pub fn success(self) -> bool {
        matches!(self, Self::On { success: true, .. })
    }

    /// A failure is to be reported.
    pub fn failure(self) -> bool {
        matches!(self, Self::On { failure: true, .. })
    }

    /// A delay is to be reported.
    pub fn delay(self) -> bool {
        matches!(self, Self::On { delay: true, .. })
    }
}

/// A recipient as the client gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Where the message is to go.
    pub address: Address,
    /// `None`: the client said nothing; [`Notify::DEFAULT`] holds.
    pub notify: Option<Notify>,
    /// ORCPT, decoded from xtext: `type;address` (RFC 3461 §4.2).
    pub original_recipient: Option<String>,
}

impl Recipient {
    /// A recipient about whom the client said no more than where.
    pub fn new(address: Address) -> Self {
        Self { address, notify: None, original_recipient: None }
    }
}

/// The envelope of a message (RFC 5321 §2.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Where failures are told.
    pub sender: ReversePath,
    /// At least one.
    pub recipients: Vec<Recipient>,
    /// BODY=.
    pub body: Body,
    /// SMTPUTF8 was given (RFC 6531).
    pub smtputf8: bool,
    /// RET=.
    pub ret: Option<Ret>,
    /// ENVID=, decoded from xtext.
    pub envelope_id: Option<String>,
}

impl Envelope {
    /// An envelope with nothing but sender and recipients said.
    pub fn new(sender: ReversePath, recipients: Vec<Recipient>) -> Self {
        Self { sender, recipients, body: Body::SevenBit, smtputf8: false, ret: None, envelope_id: None }
    }
}
