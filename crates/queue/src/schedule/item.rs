//! What is scheduled: a message within a lane, and the names it goes by in Redis.

use std::sync::atomic::{AtomicU64, Ordering};

use posthorn_mail::MessageId;
use sha2::{Digest as _, Sha256};

use crate::message::State;

/// The kinds of work; each has its own part of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Route = 0,
    Local = 1,
    Remote = 2,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Route, Self::Local, Self::Remote];

    /// As in keys, logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }

    /// The state of the recipients that wait for it.
    pub(crate) fn state(self) -> State {
        match self {
            Self::Route => State::Fresh,
            Self::Local => State::Local,
            Self::Remote => State::Remote,
        }
    }
}

/// What work is queued, limited and suspended by: for remote work the destination. Eight bytes of its SHA-256, so that
/// names of any length cost the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lane(pub(crate) [u8; 8]);

impl Lane {
    pub(crate) const ROUTE: Self = Self(*b"route\0\0\0");
    pub(crate) const LOCAL: Self = Self(*b"local\0\0\0");

    /// The lane of a destination.
    pub(crate) fn remote(destination: &str) -> Self {
        Self(digest(&[destination]))
    }

    pub(crate) fn column(self) -> i64 {
        i64::from_be_bytes(self.0)
    }

    pub(crate) fn from_column(column: i64) -> Self {
        Self(column.to_be_bytes())
    }
}

/// Whom work is taken in turns from: a sender (4 bytes of a hash) behind the group that it is of, which is its tenant,
/// or its domain where it has none (4 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow(pub(crate) [u8; 8]);

impl Flow {
    pub(crate) fn of(tenant: &str, sender: &str) -> Self {
        let domain = sender.rsplit_once('@').map_or("", |(_, domain)| domain);
        let group = if tenant.is_empty() { digest(&["domain", domain]) } else { digest(&["tenant", tenant]) };
        let mut flow = digest(&[tenant, sender]);
        flow[..4].copy_from_slice(&group[..4]);
        Self(flow)
    }

    pub(crate) fn column(self) -> i64 {
        i64::from_be_bytes(self.0)
    }

    pub(crate) fn from_column(column: i64) -> Self {
        Self(column.to_be_bytes())
    }
}

fn digest(parts: &[&str]) -> [u8; 8] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    *hash.finalize().first_chunk().expect("a SHA-256 has 32 bytes")
}

/// A message within a lane: with all of its recipients that wait there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Item {
    pub(crate) key: Key,
    pub(crate) flow: Flow,
}

/// What names an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) message: MessageId,
    pub(crate) lane: Lane,
}

impl Key {
    pub(crate) const LEN: usize = 24;

    /// Message id and lane.
    pub(crate) fn bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(self.message.as_bytes());
        bytes[16..].copy_from_slice(&self.lane.0);
        bytes
    }
}

impl Item {
    pub(crate) const LEN: usize = 32;

    /// The member of the sorted sets: key and flow.
    pub(crate) fn bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..Key::LEN].copy_from_slice(&self.key.bytes());
        bytes[Key::LEN..].copy_from_slice(&self.flow.0);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        Some(Self {
            key: Key {
                message: MessageId::try_from(&bytes[..16]).ok()?,
                lane: Lane(bytes[16..24].try_into().ok()?),
            },
            flow: Flow(bytes[24..].try_into().ok()?),
        })
    }
}

/// A number that no other lease of any replica has: random at the start of the process, then counted.
pub(super) fn nonce() -> [u8; 8] {
    static NEXT: std::sync::OnceLock<AtomicU64> = std::sync::OnceLock::new();
    NEXT.get_or_init(|| AtomicU64::new(rand::random())).fetch_add(1, Ordering::Relaxed).to_be_bytes()
}

/// The name of a lease, made by `lease.lua`: the kind of work, the lane, and a number that never comes twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token([u8; Token::LEN]);

/// In a token's first byte, beside the kind.
const IN_HAND: u8 = 0x80;

impl Token {
    pub(crate) const LEN: usize = 17;

    /// The name of a lease that only this process knows of.
    pub(crate) fn in_hand(kind: Kind, lane: Lane) -> Self {
        let mut bytes = [kind as u8 | IN_HAND; Self::LEN];
        bytes[1..9].copy_from_slice(&lane.0);
        bytes[9..].copy_from_slice(&nonce());
        Self(bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; Self::LEN] = bytes.try_into().ok()?;
        (bytes[0] & !IN_HAND < 3).then_some(Self(bytes))
    }

    pub(crate) fn kind(&self) -> Kind {
        Kind::ALL[usize::from(self.0[0] & !IN_HAND)]
    }

    /// Whether the lease is, or was, known to the process alone that gave it.
    pub(crate) fn is_in_hand(&self) -> bool {
        self.0[0] & IN_HAND != 0
    }

    pub(crate) fn lane(&self) -> Lane {
        Lane(*self.0[1..].first_chunk().expect("a token has 17 bytes"))
    }

    pub(crate) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nonce = u64::from_be_bytes(*self.0[9..].first_chunk().expect("a token has 17 bytes"));
        write!(f, "{}/{nonce:016x}", self.kind().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        let lane = Lane::remote("mx.example.net");
        let key = Key { message: MessageId::generate(), lane };
        let item = Item { key, flow: Flow::of("tenant", "a@example.net") };
        assert_eq!(Item::parse(&item.bytes()), Some(item));
        assert_eq!(Item::parse(&key.bytes()), None);
        assert_eq!(Lane::from_column(lane.column()), lane);
        assert_eq!(Flow::from_column(item.flow.column()), item.flow);
        let token = [&[2][..], &lane.0, b"12345678"].concat();
        let token = Token::parse(&token).unwrap();
        assert_eq!(Token::parse(token.bytes()), Some(token));
        assert_eq!((token.kind(), token.lane()), (Kind::Remote, lane));
        assert_eq!(Token::parse(&[9; 17]), None);
        let token = Token::in_hand(Kind::Local, Lane::LOCAL);
        assert_eq!(Token::parse(token.bytes()), Some(token));
        assert_eq!((token.kind(), token.lane(), token.is_in_hand()), (Kind::Local, Lane::LOCAL, true));
    }

    #[test]
    fn parts_of_a_flow_are_kept_apart() {
        assert_ne!(Flow::of("a", "bc"), Flow::of("ab", "c"));
        let group = |tenant, sender| Flow::of(tenant, sender).0[..4].to_vec();
        assert_eq!(group("", "b-1@x"), group("", "b-2@x"));
        assert_ne!(group("", "b@x"), group("", "b@y"));
        assert_eq!(group("t", "b@x"), group("t", "b@y"));
        assert_ne!(Flow::of("", "b-1@x"), Flow::of("", "b-2@x"));
    }
}
