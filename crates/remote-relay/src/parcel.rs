//! An item of work, read: who gets the message from whom. Pure.

use posthorn_api::optional_text;
use posthorn_api::work::v1::{Item, ItemRecipient};
use posthorn_mail::{Body, EnhancedStatus, Envelope, Outcome, Recipient, Ret, ReversePath, Status, Verdict};

/// Recipients that can share a transaction, if their hosts are the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) sender: ReversePath,
    /// Whose hosts to ask for.
    pub(crate) domain: String,
    /// The place in the item of each recipient, and the recipient.
    pub(crate) recipients: Vec<(usize, Recipient)>,
}

/// The highest number of attempts that a recipient has had.
pub(crate) fn attempt(item: &Item) -> u32 {
    item.recipients.iter().map(|recipient| recipient.attempt).max().unwrap_or_default()
}

/// The recipients by sender and domain, in the item's order; and those whose address cannot be read.
pub(crate) fn groups(item: &Item) -> (Vec<Group>, Vec<(usize, Outcome)>) {
    let (mut groups, mut unreadable) = (Vec::<Group>::new(), Vec::new());
    for (place, recipient) in item.recipients.iter().enumerate() {
        let Some((sender, domain, recipient)) = read(item, recipient) else {
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

fn read(item: &Item, recipient: &ItemRecipient) -> Option<(ReversePath, String, Recipient)> {
    let sender = recipient.sender.as_ref().unwrap_or(&item.sender).parse().ok()?;
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

/// The envelope of a transaction. RFC 3461 §5.2.7.3: what the sender asked for the notices is not asked for those to the
/// owner of a list.
pub(crate) fn envelope(item: &Item, sender: ReversePath, recipients: Vec<Recipient>, body: Body) -> Envelope {
    let is_senders = sender.to_string() == item.sender;
    Envelope {
        sender,
        recipients,
        body,
        smtputf8: item.smtputf8,
        ret: Option::<Ret>::from(item.ret()).filter(|_| is_senders),
        envelope_id: optional_text(item.envelope_id.clone()).filter(|_| is_senders),
    }
}

fn unreadable_address() -> Outcome {
    let status = Status::new(553, EnhancedStatus::new(5, 1, 3), "the address is none of SMTP's");
    Outcome { verdict: Verdict::Failed(status), remote: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sender_asked_for_is_not_asked_for_the_owner_of_a_list() {
        let mut item = Item { sender: "s@example.net".into(), envelope_id: "QQ1".into(), ..Item::default() };
        item.set_ret(posthorn_api::mail::v1::Ret::Headers);
        let asked = |sender: &str| {
            let envelope = envelope(&item, sender.parse().unwrap(), Vec::new(), Body::default());
            (envelope.ret, envelope.envelope_id)
        };
        assert_eq!(asked("s@example.net"), (Some(Ret::Headers), Some("QQ1".to_owned())));
        assert_eq!(asked("owner@example.test"), (None, None));
    }
}
