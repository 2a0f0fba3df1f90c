//! An item of work, read: who gets the message from whom. Pure.

use bytes::Bytes;
use posthorn_api::optional_text;
use posthorn_api::work::v1::{
    DeliveryReport, Item, ItemRecipient, ItemReport, RecipientOutcome, ReleasedItem, item_report,
};
use posthorn_mail::{
    Body, EnhancedStatus, Envelope, MessageId, Outcome, Recipient, Ret, ReversePath, Status, Verdict,
};

/// One item under a lease.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) token: Bytes,
    pub(crate) item: Item,
}

/// Recipients that can share a transaction, if their hosts are the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) sender: ReversePath,
    /// Whose hosts to ask for.
    pub(crate) domain: String,
    /// The place in the item of each recipient, and the recipient.
    pub(crate) recipients: Vec<(usize, Recipient)>,
}

impl Parcel {
    /// The id, for logs; `None` when it is none, which the queue never sends.
    pub(crate) fn message_id(&self) -> Option<MessageId> {
        self.item.message_id.as_ref().try_into().ok()
    }

    /// The highest number of attempts that a recipient has had.
    pub(crate) fn attempt(&self) -> u32 {
        self.item.recipients.iter().map(|recipient| recipient.attempt).max().unwrap_or_default()
    }

    /// The recipients by sender and domain, in the item's order; and those whose address cannot be read.
    pub(crate) fn groups(&self) -> (Vec<Group>, Vec<(usize, Outcome)>) {
        let (mut groups, mut unreadable) = (Vec::<Group>::new(), Vec::new());
        for (place, recipient) in self.item.recipients.iter().enumerate() {
            let Some((sender, domain, recipient)) = self.read(recipient) else {
                unreadable.push((place, unreadable_address()));
                continue;
            };
            let same = groups.iter_mut().find(|group| group.sender == sender && group.domain == domain);
            match same {
                Some(group) => group.recipients.push((place, recipient)),
                None => groups.push(Group { sender, domain, recipients: vec![(place, recipient)] }),
            }
        }
        (groups, unreadable)
    }

    fn read(&self, recipient: &ItemRecipient) -> Option<(ReversePath, String, Recipient)> {
        let sender = recipient.sender.as_ref().unwrap_or(&self.item.sender).parse().ok()?;
        let address: posthorn_mail::Address = recipient.address.parse().ok()?;
        let domain = match &recipient.remote {
            Some(remote) if !remote.domain.is_empty() => remote.domain.clone(),
            _ => address.host().to_string(),
        };
        let recipient = Recipient {
            address,
            notify: recipient.notify.map(Into::into),
            original_recipient: optional_text(recipient.original_recipient.clone()),
        };
        Some((sender, domain, recipient))
    }

    /// The envelope of a transaction.
    pub(crate) fn envelope(&self, sender: ReversePath, recipients: Vec<Recipient>, body: Body) -> Envelope {
        Envelope {
            sender,
            recipients,
            body,
            smtputf8: self.item.smtputf8,
            ret: Option::<Ret>::from(self.item.ret()),
            envelope_id: optional_text(self.item.envelope_id.clone()),
        }
    }

    /// The report: one outcome a recipient, in the item's order.
    pub(crate) fn report(self, outcomes: Vec<Outcome>) -> ItemReport {
        let recipients = self.item.recipients.iter().zip(outcomes);
        let recipients = recipients
            .map(|(recipient, outcome)| RecipientOutcome {
                recipient_no: recipient.recipient_no,
                outcome: Some(outcome.into()),
            })
            .collect();
        ItemReport {
            token: self.token,
            message_id: self.item.message_id,
            report: Some(item_report::Report::Delivery(DeliveryReport { recipients })),
        }
    }

    /// The item as given back.
    pub(crate) fn release(self) -> ReleasedItem {
        ReleasedItem { token: self.token, message_id: self.item.message_id }
    }
}

fn unreadable_address() -> Outcome {
    let status = Status::new(553, EnhancedStatus::new(5, 1, 3), "the address is none of SMTP's");
    Outcome { verdict: Verdict::Failed(status), remote: None }
}
