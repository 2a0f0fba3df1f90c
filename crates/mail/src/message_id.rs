//! The one id of a message.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Posthorn's id of a message, given at acceptance: in every log line, trace, table and notice of it (R12).
///
/// A UUIDv7: ids sort by the time they were given, so tables keyed by it grow at one end. Not the Message-ID header,
/// which is the sender's and may repeat.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Uuid);

/// The text or bytes are no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message id is a UUID, such as 0198f2a4-7c3e-7d10-9a53-0c2f7d1be001")]
pub struct MessageIdError;

impl MessageId {
    /// A new id; reads the clock and the system's randomness.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as a UUID, as the stores keep it.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// The 16 bytes that go over the wire.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl From<Uuid> for MessageId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl TryFrom<&[u8]> for MessageId {
    type Error = MessageIdError;

    fn try_from(bytes: &[u8]) -> Result<Self, MessageIdError> {
        Uuid::from_slice(bytes).map(Self).map_err(|_| MessageIdError)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        Uuid::parse_str(text).map(Self).map_err(|_| MessageIdError)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
