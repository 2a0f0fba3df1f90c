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

/// What a delivery must know of a mailbox, and changes in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mailbox {
    pub(crate) used_bytes: u64,
    pub(crate) highest_modseq: i64,
    /// By name. Those that arrivals name must be here.
    pub(crate) folders: HashMap<String, Folder>,
}

/// What a delivery must know of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Folder {
    pub(crate) id: i32,
    pub(crate) uid_next: i64,
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

/// Places `arrivals` in order; `fresh` says of each whether it has not been delivered before. `mailboxes` (those of
/// all arrivals) are carried on. A smaller message may still fit where a larger one before it did not.
pub(crate) fn place(
    arrivals: &[&Arrival],
    fresh: &[bool],
    mailboxes: &mut HashMap<Uuid, Mailbox>,
) -> Vec<Placed> {
    let one = |(arrival, fresh): (&&Arrival, &bool)| {
        if !fresh {
            return Placed::Already;
        }
        let mailbox =
            mailboxes.get_mut(&arrival.account_id).expect("the mailboxes of all arrivals are given");
        if let Err(refused) = fits(mailbox.used_bytes, arrival.size, arrival.quota) {
            return refused;
        }
        let folder = mailbox.folders.get_mut(arrival.folder.as_str()).expect("the folders of all are given");
        mailbox.used_bytes += arrival.size;
        mailbox.highest_modseq += 1;
        let uid = folder.uid_next;
        folder.uid_next += 1;
        Placed::At(Place { folder_id: folder.id, uid, modseq: mailbox.highest_modseq })
    };
    arrivals.iter().zip(fresh).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(account: u128, folder: &str, size: u64, quota: u64) -> Arrival {
        Arrival {
            message_id: Uuid::from_u128(1),
            account_id: Uuid::from_u128(account),
            folder: folder.parse().unwrap(),
            recipient: "a@x".into(),
            return_path: String::new(),
            size,
            quota,
        }
    }

    fn mailbox(used_bytes: u64, highest_modseq: i64) -> Mailbox {
        let folder = |id, uid_next| Folder { id, uid_next };
        Mailbox {
            used_bytes,
            highest_modseq,
            folders: [("INBOX".to_owned(), folder(1, 7)), ("Junk".to_owned(), folder(5, 1))].into(),
        }
    }

    fn at(folder_id: i32, uid: i64, modseq: i64) -> Placed {
        Placed::At(Place { folder_id, uid, modseq })
    }

    #[test]
    fn numbers_run_on_by_folder_and_by_mailbox() {
        let mut mailboxes =
            HashMap::from([(Uuid::from_u128(1), mailbox(0, 40)), (Uuid::from_u128(2), mailbox(0, 0))]);
        let arrivals = [
            arrival(1, "INBOX", 10, 0),
            arrival(2, "INBOX", 10, 0),
            arrival(1, "Junk", 10, 0),
            arrival(1, "INBOX", 10, 0),
            arrival(1, "INBOX", 10, 0),
        ];
        let placed =
            place(&arrivals.iter().collect::<Vec<_>>(), &[true, true, true, false, true], &mut mailboxes);
        assert_eq!(placed, [at(1, 7, 41), at(1, 7, 1), at(5, 1, 42), Placed::Already, at(1, 8, 43)]);
        let first = &mailboxes[&Uuid::from_u128(1)];
        assert_eq!((first.used_bytes, first.highest_modseq, first.folders["INBOX"].uid_next), (30, 43, 9));
    }

    #[test]
    fn a_full_mailbox_takes_what_still_fits() {
        let mut mailboxes = HashMap::from([(Uuid::from_u128(1), mailbox(50, 0))]);
        let arrivals: Vec<_> =
            [60, 101, 50, 1, 0].iter().map(|size| arrival(1, "INBOX", *size, 100)).collect();
        let placed = place(&arrivals.iter().collect::<Vec<_>>(), &[true; 5], &mut mailboxes);
        assert_eq!(placed, [Placed::Full, Placed::TooLarge, at(1, 7, 1), Placed::Full, at(1, 8, 2)]);
    }
}
