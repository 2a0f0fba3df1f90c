//! From leased items to a worker's batch: what of them is to be done, and what is not.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use posthorn_api::mail::v1 as wire;
use posthorn_api::work::v1::{Item as WorkItem, ItemRecipient};
use posthorn_api::{message_id_bytes, timestamp};
use posthorn_mail::MessageId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::hub::Hub;
use crate::message::{Place, Recipient};
use crate::poison;
use crate::schedule::{Item, Kind, Leased, Settle, Then};
use crate::spool::{self, Message};

/// Recipients that are due so little later are taken along: they would only need a transaction of their own.
const SOON: Duration = Duration::from_millis(50);

/// The most recipients of a batch, unless a single message has more: it must fit into a message of gRPC, and its outcome
/// into a transaction.
const MAX_RECIPIENTS: usize = 20_000;

/// What leased items have come to.
pub(crate) struct Loaded {
    pub(crate) items: Vec<WorkItem>,
    pub(crate) given: Vec<Item>,
    pub(crate) destination: String,
    /// Leased items that are not given out, and what becomes of them.
    pub(crate) aside: Vec<Settle>,
}

/// Reads what the ledger says of leased items.
pub(crate) async fn load(hub: &Hub, leased: &Leased, now: OffsetDateTime) -> sqlx::Result<Loaded> {
    hub.standing.with(async |connection| load_over(connection, hub, leased, now).await).await
}

async fn load_over(
    connection: &mut PgConnection,
    hub: &Hub,
    leased: &Leased,
    now: OffsetDateTime,
) -> sqlx::Result<Loaded> {
    let kind = leased.token.kind();
    let ids: Vec<MessageId> = leased.items.iter().map(|(item, _)| item.key.message).collect();
    let messages = spool::load::messages(connection, &ids).await?;
    let (taken, left) = leased.items.split_at(fitting(&leased.items, &messages));
    let keys: Vec<_> = taken.iter().map(|(item, _)| item.key).collect();
    let mut waiting = spool::load::waiting(connection, &keys).await?;
    let back = |(item, _): &(Item, u8)| Settle { key: item.key, token: leased.token, then: Then::Back };
    let aside = left.iter().map(back).collect();
    let mut loaded = Loaded { items: Vec::new(), given: Vec::new(), destination: String::new(), aside };
    let mut poisonous = Vec::new();
    for (item, leases) in taken {
        let aside = |then| Settle { key: item.key, token: leased.token, then };
        let recipients = waiting.remove(&item.key).unwrap_or_default();
        let Some(message) = messages.get(&item.key.message).filter(|m| !m.held && !m.poison) else {
            // It has ended, or comes back into the schedule when it is released.
            loaded.aside.push(aside(Then::Done));
            continue;
        };
        let next = recipients.iter().filter_map(|r| r.next_attempt_at).min();
        match next {
            None => loaded.aside.push(aside(Then::Done)),
            Some(at) if at > now + SOON => loaded.aside.push(aside(Then::At(at))),
            Some(_) if *leases > hub.config.lease.poison_after => {
                poisonous.push(message.id);
                loaded.aside.push(aside(Then::Done));
            }
            Some(_) => {
                let due =
                    recipients.into_iter().filter(|r| r.next_attempt_at.is_some_and(|at| at <= now + SOON));
                let work = work_item(message, due);
                if let Some(remote) = work.recipients.first().and_then(|r| r.remote.as_ref()) {
                    loaded.destination.clone_from(&remote.destination);
                }
                loaded.items.push(work);
                loaded.given.push(*item);
            }
        }
    }
    if !poisonous.is_empty() {
        let why = format!("set aside after {} leases without an outcome", hub.config.lease.poison_after);
        poison::set_aside(hub, connection, &poisonous, &why, now).await?;
    }
    if kind == Kind::Remote {
        attach_contents(hub, connection, &mut loaded.items).await?;
    }
    Ok(loaded)
}

/// How many of the items make a batch, by what their messages' recipients may be; at least one.
fn fitting(items: &[(Item, u8)], messages: &HashMap<MessageId, Message>) -> usize {
    let pending = |item: &Item| messages.get(&item.key.message).map_or(0, |message| message.pending as usize);
    let mut recipients = 0;
    let fit = items.iter().take_while(|(item, _)| {
        recipients += pending(item);
        recipients <= MAX_RECIPIENTS
    });
    fit.count().max(1)
}

pub(crate) fn work_item(message: &Message, recipients: impl Iterator<Item = Recipient>) -> WorkItem {
    WorkItem {
        message_id: message_id_bytes(message.id),
        sender: message.sender.clone(),
        body: wire::Body::from(message.body).into(),
        smtputf8: message.smtputf8,
        ret: wire::Ret::from(message.ret).into(),
        envelope_id: message.envelope_id.clone().unwrap_or_default(),
        size: message.size,
        received_at: Some(timestamp(message.received_at)),
        traceparent: message.traceparent.clone(),
        recipients: recipients.map(work_recipient).collect(),
        content: None,
        header: Bytes::new(),
    }
}

fn work_recipient(recipient: Recipient) -> ItemRecipient {
    let (local, remote) = match recipient.place {
        Place::Unknown => (None, None),
        Place::Local(target) => (Some(target), None),
        Place::Remote(target) => (None, Some(target)),
    };
    ItemRecipient {
        recipient_no: recipient.no,
        address: recipient.address,
        notify: recipient.notify.map(Into::into),
        original_recipient: recipient.original.unwrap_or_default(),
        attempt: recipient.attempts,
        local,
        remote,
        sender: recipient.sender,
    }
}

/// Small contents travel with the work, as far as a batch has room.
async fn attach_contents(
    hub: &Hub,
    connection: &mut PgConnection,
    items: &mut [WorkItem],
) -> sqlx::Result<()> {
    let (each, mut room) = (hub.config.lease.inline_up_to.as_u64(), hub.config.lease.inline_batch.as_u64());
    let mut wanted = Vec::new();
    for item in items.iter() {
        if item.size <= each && item.size <= room {
            room -= item.size;
            wanted.extend(MessageId::try_from(&item.message_id[..]));
        }
    }
    let mut contents: HashMap<MessageId, Bytes> = posthorn_content::read_many(connection, &wanted).await?;
    for item in items {
        item.content = MessageId::try_from(&item.message_id[..]).ok().and_then(|id| contents.remove(&id));
    }
    Ok(())
}
