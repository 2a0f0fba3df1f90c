//! The decision of a delivery: what fits, and where it stands. Pure.

use std::collections::HashMap;

use uuid::Uuid;

use crate::folder_name::FolderName;

/// One copy of a message on its way into one mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Posthorn's id of the message, which is its content's too.
    pub(crate) message_id: Uuid,
    pub(crate) account_id: Uuid,
    pub(crate) folder: FolderName,
    /// After aliases: becomes Delivered-To.
    pub(crate) recipient: String,
    pub(crate) return_path: String,
    /// Bytes as read.
    pub(crate) size: u64,
    /// Of the whole mailbox, in bytes; 0 is unlimited.
    pub(crate) quota: u64,
}

impl Arrival {
    /// The recipient as the key against repeats: the directory knows addresses whatever their case, so two spellings
    /// of one are the same recipient.
    pub(crate) fn recipient_key(&self) -> String {
        self.recipient.to_lowercase()
    }
}

/// What came of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It is in the mailbox now.
    At(Place),
    /// It has been there since an earlier delivery.
    Already,
    /// The mailbox has no room left for it.
    Full,
    /// It would not fit into the empty mailbox.
    TooLarge,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) folder_id: i32,
    pub(crate) uid: i64,
    pub(crate) modseq: i64,
}

/// Whether `size` more bytes fit a mailbox of `used` bytes under `quota` (0 is unlimited).
pub(crate) fn fits(used: u64, size: u64, quota: u64) -> Result<(), Placed> {
    match quota {
        0 => Ok(()),
        _ if size > quota => Err(Placed::TooLarge),
        _ if used.saturating_add(size) > quota => Err(Placed::Full),
        _ => Ok(()),
    }
}

/// Which of `arrivals` are not to be placed, in order; `repeated` says of each whether it has been delivered before. `used`
/// (the bytes in the mailboxes of all) are carried on. A smaller message may still fit where a larger one before it did not.
pub(crate) fn refuse(
    arrivals: &[&Arrival],
    repeated: &[bool],
    used: &mut HashMap<Uuid, u64>,
) -> Vec<Option<Placed>> {
    let one = |(arrival, repeated): (&&Arrival, &bool)| {
        if *repeated {
            return Some(Placed::Already);
        }
        let used = used.entry(arrival.account_id).or_default();
        let refused = fits(*used, arrival.size, arrival.quota).err();
        if refused.is_none() {
            *used += arrival.size;
        }
        refused
    };
    arrivals.iter().zip(repeated).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(account: u128, size: u64, quota: u64) -> Arrival {
        Arrival {
            message_id: Uuid::from_u128(1),
            account_id: Uuid::from_u128(account),
            folder: FolderName::inbox(),
            recipient: "a@x".into(),
            return_path: String::new(),
            size,
            quota,
        }
    }

    #[test]
    fn a_full_mailbox_takes_what_still_fits() {
        let mut used = HashMap::from([(Uuid::from_u128(1), 50)]);
        let arrivals: Vec<_> = [60, 101, 50, 1, 0].iter().map(|size| arrival(1, *size, 100)).collect();
        let refused = refuse(&arrivals.iter().collect::<Vec<_>>(), &[false; 5], &mut used);
        assert_eq!(refused, [Some(Placed::Full), Some(Placed::TooLarge), None, Some(Placed::Full), None]);
    }

    #[test]
    fn mailboxes_are_counted_apart_and_what_was_delivered_takes_no_room() {
        let mut used = HashMap::new();
        let arrivals = [arrival(1, 60, 100), arrival(2, 60, 100), arrival(1, 60, 100), arrival(1, 40, 100)];
        let refused = refuse(&arrivals.iter().collect::<Vec<_>>(), &[false, false, true, false], &mut used);
        assert_eq!(refused, [None, None, Some(Placed::Already), None]);
        assert_eq!(used, HashMap::from([(Uuid::from_u128(1), 100), (Uuid::from_u128(2), 60)]));
    }
}
