//! What the keys of the schedule are called, and in which partition an item is. Pure. What each key holds is in the table
//! of the crate's README; the scripts make their names of the `due` that they are given (`common.lua`).

use super::{Key, Kind, Lane};

/// The layout of the schedule in Redis.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
    partitions: u16,
}

impl Keys {
    /// All keys begin with `prefix`; each kind of work is in so many partitions.
    pub(super) fn new(prefix: &str, partitions: u16) -> Self {
        Self { prefix: prefix.to_owned(), partitions }
    }

    /// The key of this name in a partition. What is in braces is the hash tag of Redis Cluster: all keys of a partition
    /// are in one slot.
    pub(super) fn of(&self, kind: Kind, partition: u16, name: &str) -> String {
        format!("{}:{{{}.{partition}}}:{name}", self.prefix, kind.name())
    }

    /// The channel that tells other replicas of new work.
    pub(super) fn channel(&self) -> String {
        format!("{}:wake", self.prefix)
    }

    pub(super) fn partitions(&self) -> std::ops::Range<u16> {
        0..self.partitions
    }

    /// The partition of an item: a lane of remote work, with its limits, is in one; all else goes by message.
    pub(super) fn partition(&self, kind: Kind, key: &Key) -> u16 {
        match kind {
            Kind::Remote => self.partition_of_lane(key.lane),
            Kind::Route | Kind::Local => {
                let [.., high, low] = *key.message.as_bytes();
                u16::from_be_bytes([high, low]) % self.partitions
            }
        }
    }

    pub(super) fn partition_of_lane(&self, lane: Lane) -> u16 {
        u16::from_be_bytes([lane.0[0], lane.0[1]]) % self.partitions
    }
}

#[cfg(test)]
mod tests {
    use posthorn_mail::MessageId;

    use super::*;

    #[test]
    fn keys_of_a_partition_share_a_hash_tag() {
        let keys = Keys::new("posthorn", 4);
        for (kind, partition, name, key) in [
            (Kind::Route, 0, "due", "posthorn:{route.0}:due"),
            (Kind::Local, 3, "lease", "posthorn:{local.3}:lease"),
            (Kind::Remote, 1, "lanes", "posthorn:{remote.1}:lanes"),
        ] {
            assert_eq!(keys.of(kind, partition, name), key);
        }
        assert_eq!(keys.channel(), "posthorn:wake");
    }

    #[test]
    fn an_item_is_in_one_partition() {
        let (keys, mut message) = (Keys::new("p", 4), [0; 16]);
        message[14..].copy_from_slice(&[1, 6]);
        let message = MessageId::try_from(&message[..]).expect("16 bytes");
        let remote = Lane([0, 5, 9, 9, 9, 9, 9, 9]);
        for (kind, lane, partition) in [
            (Kind::Route, Lane::ROUTE, 262 % 4),
            (Kind::Local, Lane::LOCAL, 262 % 4),
            // Of a destination all messages, with its limits.
            (Kind::Remote, remote, 5 % 4),
        ] {
            assert_eq!(keys.partition(kind, &Key { message, lane }), partition, "{kind:?}");
        }
        assert_eq!(keys.partition_of_lane(remote), 1);
        assert_eq!(Keys::new("p", 1).partitions(), 0..1);
    }

    /// The table of the README names all keys, and no others.
    #[test]
    fn the_table_is_whole() {
        let lua = include_str!("common.lua");
        let mut made: Vec<&str> =
            lua.split("base .. '").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
        made.push("due");
        let table = include_str!("../../README.md").lines();
        let row = |line: &'static str| line.strip_prefix("| `")?.split([':', '`']).next();
        let mut told: Vec<&str> = table.filter_map(row).collect();
        for names in [&mut made, &mut told] {
            names.iter_mut().for_each(|name| *name = name.trim_end_matches(':'));
            names.sort_unstable();
        }
        assert_eq!(made, told);
    }
}
