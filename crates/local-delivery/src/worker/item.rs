//! An item of work: to arrivals, and from what came of them to outcomes. Pure.

use posthorn_api::work::v1::{Item, ItemRecipient};
use posthorn_mail::{EnhancedStatus, Outcome, Status, Verdict};
use uuid::Uuid;

use crate::copy::CopyHeaders;
use crate::folder_name::FolderName;
use crate::placement::{Arrival, Placed};

/// Why an item as a whole cannot be delivered now.
pub(crate) const STORE_FAILED: &str = "the mailbox store could not take the message";

/// The copies to deliver, one a recipient; a recipient that names no mailbox is sent back to the router.
pub(crate) fn arrivals(item: &Item) -> Vec<Result<Arrival, Outcome>> {
    let message_id = Uuid::from_slice(&item.message_id).ok();
    item.recipients
        .iter()
        .map(|recipient| {
            let arrival = message_id.and_then(|id| arrival(item, id, recipient));
            arrival.ok_or_else(|| outcome(Verdict::Reroute("the work names no mailbox".into())))
        })
        .collect()
}

fn arrival(item: &Item, message_id: Uuid, recipient: &ItemRecipient) -> Option<Arrival> {
    let target = recipient.local.as_ref()?;
    let return_path = recipient.sender.as_ref().unwrap_or(&item.sender);
    Some(Arrival {
        message_id,
        account_id: Uuid::from_slice(&target.account_id).ok()?,
        // A rule that names an impossible folder must not cost the message.
        folder: FolderName::or_inbox(&target.folder).unwrap_or_else(|_| FolderName::inbox()),
        recipient: recipient.address.clone(),
        return_path: return_path.clone(),
        size: item.size + CopyHeaders::delivered(return_path, &recipient.address).len(),
        quota: target.quota_bytes,
    })
}

/// What the sender's side is told.
pub(crate) fn verdict(placed: Placed) -> Verdict {
    let status = |code, class, subject, detail, text: &str| {
        Status::new(code, EnhancedStatus::new(class, subject, detail), text)
    };
    match placed {
        Placed::At(_) | Placed::Already => {
            let status = status(250, 2, 0, 0, "delivered to the mailbox");
            Verdict::Delivered { status, dsn_passed_on: false }
        }
        // RFC 5321 §4.2.2: 452 insufficient system storage; RFC 3463 §3.3: X.2.2 mailbox full.
        Placed::Full => {
            Verdict::Deferred { status: status(452, 4, 2, 2, "mailbox full"), destination_unavailable: false }
        }
        // RFC 5321 §4.2.2: 552 exceeded storage allocation; RFC 3463 §3.3: X.2.3 exceeds administrative limit.
        Placed::TooLarge => Verdict::Failed(status(552, 5, 2, 3, "the message is larger than the mailbox")),
    }
}

/// What is told when the store fails on this very message.
pub(crate) fn store_failed() -> Outcome {
    let status = Status::new(451, EnhancedStatus::new(4, 3, 0), STORE_FAILED);
    outcome(Verdict::Deferred { status, destination_unavailable: false })
}

/// An outcome of our own.
pub(crate) fn outcome(verdict: Verdict) -> Outcome {
    Outcome { verdict, remote: None }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use posthorn_api::work::v1::LocalTarget;

    use super::*;

    fn item(recipients: Vec<ItemRecipient>) -> Item {
        Item {
            message_id: Bytes::copy_from_slice(&[7; 16]),
            sender: "s@x".into(),
            size: 100,
            recipients,
            ..Item::default()
        }
    }

    #[test]
    fn a_recipient_becomes_an_arrival() {
        let local = LocalTarget {
            account_id: Bytes::copy_from_slice(&[9; 16]),
            folder: "inbox".into(),
            quota_bytes: 5,
            ..LocalTarget::default()
        };
        let recipient =
            ItemRecipient { address: "a@y".into(), local: Some(local), ..ItemRecipient::default() };
        let list = ItemRecipient { sender: Some("owner@y".into()), ..recipient.clone() };
        let arrivals: Vec<_> =
            arrivals(&item(vec![recipient, list])).into_iter().map(Result::unwrap).collect();
        assert_eq!(arrivals[0].size, 100 + "Return-Path: <s@x>\r\nDelivered-To: a@y\r\n".len() as u64);
        assert_eq!((arrivals[0].folder.as_str(), arrivals[0].quota), ("INBOX", 5));
        assert_eq!(arrivals[1].return_path, "owner@y");
    }

    #[test]
    fn work_without_a_mailbox_goes_back_to_the_router() {
        let arrivals = arrivals(&item(vec![ItemRecipient::default()]));
        assert!(matches!(arrivals[0].as_ref().unwrap_err().verdict, Verdict::Reroute(_)));
    }

    #[test]
    fn quota_is_told_as_the_rfcs_say() {
        for (placed, text) in [
            (Placed::Already, "250 2.0.0 delivered to the mailbox"),
            (Placed::Full, "452 4.2.2 mailbox full"),
            (Placed::TooLarge, "552 5.2.3 the message is larger than the mailbox"),
        ] {
            let status = match verdict(placed) {
                Verdict::Delivered { status, .. }
                | Verdict::Deferred { status, .. }
                | Verdict::Failed(status) => status,
                other => panic!("{other:?}"),
            };
            assert_eq!(status.to_string(), text);
        }
    }
}
