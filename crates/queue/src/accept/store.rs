//! Writing messages into the ledger: R1's commit.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use posthorn_content::Chunks;
use posthorn_mail::MessageId;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::{Answer, Content, Incoming};
use crate::config::Config;
use crate::hub::Hub;
use crate::message::Recipient;
use crate::schedule::{Flow, Item, Key, Lane};
use crate::spool::{self as ledger, Message, NewKey, NewMessage};
use crate::trace::Record;
use crate::{notice, timer};

/// A message that is durable.
pub(super) struct Stored {
    pub(super) new: NewMessage,
    /// It was not there before.
    pub(super) is_new: bool,
}

/// One transaction: R1's commit.
pub(super) async fn store(hub: &Hub, incoming: &[Incoming]) -> sqlx::Result<(Vec<Answer>, Vec<Stored>)> {
    let now = hub.now();
    let (answers, new) = hub
        .standing
        .with(async |connection| store_over(connection, &hub.config, incoming, now).await)
        .await?;
    let stored = || new.iter().filter(|stored| stored.is_new).map(|stored| &stored.new);
    let messages = stored().count() as u64;
    let bytes = stored().map(|n| n.message.size).sum();
    hub.level.add(messages, bytes);
    metrics::counter!("posthorn_queue_accepted_total").increment(messages);
    metrics::counter!("posthorn_queue_accepted_bytes").increment(bytes);
    if hub.wake.is_watched() {
        hub.wake.tell(&stored().map(|n| Record::accepted(&n.message)).collect::<Vec<_>>());
    }
    hub.timer_at(stored().map(|n| n.timer_at).min());
    Ok((answers, new))
}

async fn store_over(
    connection: &mut PgConnection,
    config: &Config,
    incoming: &[Incoming],
    now: OffsetDateTime,
) -> sqlx::Result<(Vec<Answer>, Vec<Stored>)> {
    if incoming.iter().all(Incoming::is_plain) {
        let new: Vec<NewMessage> = incoming.iter().map(|i| new_message(config, i, now)).collect();
        let is_new = insert(connection, &new, incoming.iter()).await?;
        return Ok((vec![Answer::Accepted; incoming.len()], stored(new, &is_new)));
    }
    let mut transaction = connection.begin().await?;
    let repeated = keys(&mut transaction, incoming).await?;
    let mut answers: Vec<Answer> = Vec::with_capacity(incoming.len());
    let mut taken: Vec<&Incoming> = Vec::with_capacity(incoming.len());
    for (at, message) in incoming.iter().enumerate() {
        match repeated.get(&at) {
            Some(answer) => answers.push(answer.clone()),
            // Its key must not be kept either: the transaction fails, and is done again without it.
            None if !found(&mut transaction, message).await? => return Err(sqlx::Error::RowNotFound),
            None => {
                answers.push(Answer::Accepted);
                taken.push(message);
            }
        }
    }
    let new: Vec<NewMessage> = taken.iter().map(|i| new_message(config, i, now)).collect();
    let is_new = insert(&mut transaction, &new, taken.iter().copied()).await?;
    transaction.commit().await?;
    Ok((answers, stored(new, &is_new)))
}

fn stored(new: Vec<NewMessage>, is_new: &HashSet<MessageId>) -> Vec<Stored> {
    new.into_iter().map(|new| Stored { is_new: is_new.contains(&new.message.id), new }).collect()
}

/// The messages whose key was seen before, by their place, with their answers.
async fn keys(
    connection: &mut sqlx::PgConnection,
    incoming: &[Incoming],
) -> sqlx::Result<HashMap<usize, Answer>> {
    let mut keyed: Vec<(usize, &NewKey)> =
        incoming.iter().enumerate().filter_map(|(at, i)| Some((at, i.key.as_ref()?))).collect();
    if keyed.is_empty() {
        return Ok(HashMap::new());
    }
    keyed.sort_by(|(_, a), (_, b)| (&a.scope, &a.key).cmp(&(&b.scope, &b.key)));
    let given: Vec<NewKey> = keyed.iter().map(|(_, key)| (*key).clone()).collect();
    let mut fresh = ledger::insert::keys(connection, &given).await?;
    // Of two with the same key in one batch the first takes it.
    let known: Vec<(usize, &NewKey)> =
        keyed.into_iter().filter(|(_, key)| !fresh.remove(&(key.scope.clone(), key.key.clone()))).collect();
    let names: Vec<_> = known.iter().map(|(_, key)| (key.scope.clone(), key.key.clone())).collect();
    let first = ledger::insert::known_keys(connection, &names).await?;
    let answer = |(at, key): (usize, &NewKey)| {
        let first = first.get(&(key.scope.clone(), key.key.clone()))?;
        // The same message handed in again, its answer lost: not a second one.
        let same = first.digest == key.digest;
        Some((at, if same { Answer::Repeated(first.clone()) } else { Answer::KeyConflict }))
    };
    Ok(known.into_iter().filter_map(answer).collect())
}

/// Whether the content is there; an upload becomes one with this transaction.
async fn found(connection: &mut sqlx::PgConnection, incoming: &Incoming) -> sqlx::Result<bool> {
    match incoming.content {
        Content::Here(_) => Ok(true),
        Content::Uploaded(_) => posthorn_content::unrelease(connection, incoming.id).await,
    }
}

pub(super) fn new_message(config: &Config, incoming: &Incoming, now: OffsetDateTime) -> NewMessage {
    let envelope = &incoming.envelope;
    let sender = envelope.sender.to_string();
    let received_at = incoming.received_at.min(now);
    let expires_at = received_at + config.give_up.after;
    let recipient = |(no, given): (u32, &posthorn_mail::Recipient)| Recipient {
        notify: given.notify,
        original: given.original_recipient.clone(),
        ..Recipient::fresh(no, given.address.to_string(), now)
    };
    let recipients: Vec<Recipient> = (1..).zip(&envelope.recipients).map(recipient).collect();
    NewMessage {
        timer_at: notice::next_look(&config.notice.after, received_at, 0, timer::end(config, expires_at)),
        message: Message {
            id: incoming.id,
            flow: Flow::of(&incoming.origin.tenant_id, &sender),
            sender,
            received_at,
            expires_at,
            size: incoming.content.size(),
            body: envelope.body,
            smtputf8: envelope.smtputf8,
            ret: envelope.ret,
            envelope_id: envelope.envelope_id.clone(),
            origin: incoming.origin.clone(),
            traceparent: incoming.traceparent.clone(),
            held: false,
            poison: false,
            noticed: 0,
            recipients: recipients.len() as u32,
            pending: recipients.len() as u32,
            maybe_local: false,
        },
        recipients,
    }
}

/// Inserts messages with all that belongs to them, and returns which are new; those that are there already, and of the
/// repeated ones those that have ended, are passed over.
async fn insert<'a>(
    connection: &mut PgConnection,
    new: &[NewMessage],
    incoming: impl Iterator<Item = &'a Incoming> + Clone,
) -> sqlx::Result<HashSet<MessageId>> {
    let contents = |repeated| {
        incoming.clone().filter(move |i| i.repeated == repeated).filter_map(|i| match &i.content {
            Content::Here(bytes) => Some((i.id, bytes)),
            Content::Uploaded(_) => None,
        })
    };
    let mut is_new = ledger::insert::messages(connection, new, Chunks::of(contents(false))).await?;
    let repeated: Vec<MessageId> =
        incoming.clone().filter(|i| i.repeated && is_new.contains(&i.id)).map(|i| i.id).collect();
    if repeated.is_empty() {
        return Ok(is_new);
    }
    for ended in ledger::insert::take_back_ended(connection, &repeated).await? {
        is_new.remove(&ended);
    }
    let contents: Vec<(MessageId, Bytes)> =
        contents(true).filter(|(id, _)| is_new.contains(id)).map(|(id, bytes)| (id, bytes.clone())).collect();
    posthorn_content::insert(connection, &contents).await?;
    Ok(is_new)
}

/// Messages of Posthorn's own (notices) join the spool in the transaction of what they tell of.
pub(crate) async fn insert_own(
    connection: &mut sqlx::PgConnection,
    config: &Config,
    own: &[Incoming],
    now: OffsetDateTime,
) -> sqlx::Result<(Vec<Record>, Vec<(Item, OffsetDateTime)>)> {
    if own.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let new: Vec<NewMessage> = own.iter().map(|i| new_message(config, i, now)).collect();
    insert(connection, &new, own.iter()).await?;
    let items = new.iter().map(|n| (fresh_item(&n.message), now)).collect();
    Ok((new.iter().map(|n| Record::accepted(&n.message)).collect(), items))
}

pub(super) fn fresh_item(message: &Message) -> Item {
    Item { key: Key { message: message.id, lane: Lane::ROUTE }, flow: message.flow }
}
