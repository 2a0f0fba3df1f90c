//! Taking messages over: natural batching. What arrives while a transaction is under way goes into the next one (R7).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use posthorn_api::mail::v1::Origin;
use posthorn_content::Chunks;
use posthorn_mail::{EnhancedStatus, Envelope, MessageId, Status};
use posthorn_service::gather;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::config::Config;
use crate::error::Unavailable;
use crate::hub::Hub;
use crate::in_hand::Letter;
use crate::level::Level;
use crate::message::Recipient;
use crate::schedule::{Flow, Item, Key, Kind, Lane};
use crate::spool::{self, KnownKey, Message, NewKey, NewMessage};
use crate::trace::Record;
use crate::{notice, spool as ledger, timer};

/// A message that somebody hands in.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) id: MessageId,
    pub(crate) envelope: Envelope,
    pub(crate) origin: Origin,
    pub(crate) received_at: OffsetDateTime,
    pub(crate) traceparent: String,
    pub(crate) key: Option<NewKey>,
    pub(crate) content: Content,
    /// It was handed in before, and the answer lost.
    pub(crate) repeated: bool,
}

impl Incoming {
    /// One statement takes it in: nothing has to be looked up before or after.
    fn is_plain(&self) -> bool {
        self.key.is_none() && !self.repeated && matches!(self.content, Content::Here(_))
    }
}

/// Where the bytes of a message are.
#[derive(Debug)]
pub(crate) enum Content {
    Here(Bytes),
    /// In the store already, counted as released; so many bytes.
    Uploaded(u64),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Uploaded(size) => *size,
        }
    }
}

/// What became of an incoming message.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Durable.
    Accepted,
    /// Its idempotency key was used for the same before.
    Repeated(KnownKey),
    /// Its idempotency key was used for something else.
    KeyConflict,
    /// Not taken.
    Refused(Status),
    /// Kept or not, nobody can say.
    Unknown,
}

struct Job {
    incoming: Incoming,
    answer: oneshot::Sender<Result<Answer, Unavailable>>,
}

/// The way into the spool; cheap to clone.
#[derive(Clone)]
pub(crate) struct Accept {
    jobs: mpsc::Sender<Job>,
    level: Arc<Level>,
}

impl Accept {
    /// Hands messages in and waits until they are durable; an answer each, in order.
    pub(crate) async fn accept(&self, incoming: Vec<Incoming>) -> Result<Vec<Answer>, Unavailable> {
        if self.level.is_full() {
            return Err(Unavailable::SpoolFull);
        }
        let permits = self.jobs.try_reserve_many(incoming.len()).map_err(|_| Unavailable::Busy)?;
        let mut answers = Vec::with_capacity(incoming.len());
        for (permit, incoming) in permits.zip(incoming) {
            let (answer, receiver) = oneshot::channel();
            permit.send(Job { incoming, answer });
            answers.push(receiver);
        }
        let mut given = Vec::with_capacity(answers.len());
        for answer in answers {
            given.push(answer.await.unwrap_or(Err(Unavailable::Stopping)));
        }
        // The call fails as a whole only when nothing of it was kept.
        let failed = |error: Unavailable| {
            if error.is_in_doubt() { Answer::Unknown } else { Answer::Refused(try_later()) }
        };
        let worst = given.iter().filter_map(|answer| answer.as_ref().err()).max_by_key(|e| e.is_in_doubt());
        match worst {
            Some(error) if given.iter().all(Result::is_err) => Err(error.clone()),
            _ => Ok(given.into_iter().map(|answer| answer.unwrap_or_else(failed)).collect()),
        }
    }
}

fn try_later() -> Status {
    Status::new(451, EnhancedStatus::new(4, 3, 0), "the message could not be stored, try again later")
}

/// Starts the writers; they end when every [`Accept`] is dropped and all that waits is written.
pub(crate) fn start(hub: &Arc<Hub>, tasks: &mut JoinSet<()>) -> Accept {
    let config = &hub.config.accept;
    let (sender, receiver) = mpsc::channel(config.max_waiting);
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..config.writers {
        tasks.spawn(write_all(hub.clone(), receiver.clone()));
    }
    Accept { jobs: sender, level: hub.level.clone() }
}

async fn write_all(hub: Arc<Hub>, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    let most = hub.config.accept.max_batch;
    let most_bytes = hub.config.accept.max_batch_bytes.as_u64();
    loop {
        let (mut messages, mut bytes) = (0, 0);
        let is_full = |job: &Job| {
            messages += 1;
            bytes += job.incoming.content.size();
            messages >= most || bytes >= most_bytes
        };
        let Some(batch) = gather(&jobs, is_full).await else { return };
        let span = tracing::info_span!("queue.accept", messages = batch.len());
        for job in &batch {
            posthorn_service::trace::link(&span, &job.incoming.traceparent);
        }
        write(&hub, batch).instrument(span).await;
    }
}

async fn write(hub: &Hub, mut batch: Vec<Job>) {
    // Who no longer waits for the answer hands the message in again: it must not come in behind itself.
    batch.retain(|job| !job.answer.is_closed());
    let started = Instant::now();
    let (incoming, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|job| (job.incoming, job.answer)).unzip();
    let mut stored = Vec::new();
    let given = match store(hub, &incoming).await {
        Ok((given, new)) => {
            stored = new;
            given.into_iter().map(Ok).collect()
        }
        Err(error) if spool::is_away(&error) || incoming.len() == 1 => {
            vec![Err(refuse(&error)); incoming.len()]
        }
        // One of them is to blame: the others do not suffer for it.
        Err(_) => {
            let mut given = Vec::with_capacity(incoming.len());
            for one in incoming.chunks(1) {
                let answer = store(hub, one).await.map_err(|error| refuse(&error));
                given.push(answer.map(|(mut answers, new)| {
                    stored.extend(new);
                    answers.remove(0)
                }));
            }
            given
        }
    };
    metrics::histogram!("posthorn_queue_accept_seconds").record(started.elapsed());
    for (answer, given) in answers.into_iter().zip(given) {
        // A caller that has gone will ask again, with the same id or key.
        let _ = answer.send(given);
    }
    begin_work(hub, stored).await;
}

/// Takes new messages in hand, as many as may be; the others, and those that were there already, go by the schedule.
async fn begin_work(hub: &Hub, stored: Vec<Stored>) {
    let now = OffsetDateTime::now_utc();
    let (mut letters, mut scheduled) = (Vec::new(), Vec::new());
    let room = hub.in_hand.room();
    for Stored { new, is_new } in stored {
        if is_new && letters.len() < room {
            letters.push(Letter::new(new.message, new.recipients, Instant::now()));
        } else {
            scheduled.push((fresh_item(&new.message), now));
        }
    }
    let in_hand: Vec<Item> = letters.iter().map(Letter::item).collect();
    // Nothing waits for the schedule: should this process die before it knows, the sweep finds them.
    let too_late = hub.in_hand.put(Kind::Route, letters, Instant::now());
    if !in_hand.is_empty() {
        let until = now + hub.config.lease.length;
        if let Err(error) = hub.schedule.take_in_hand(Kind::Route, &in_hand, until).await {
            hub.redis_failed(&error);
        }
    }
    scheduled.extend(too_late.into_iter().map(|item| (item, now)));
    hub.schedule_soon(Kind::Route, &scheduled, now).await;
}

fn refuse(error: &sqlx::Error) -> Unavailable {
    tracing::warn!(%error, "messages could not be stored");
    Unavailable::transaction(error)
}

/// A message that is durable.
struct Stored {
    new: NewMessage,
    /// It was not there before.
    is_new: bool,
}

/// One transaction: R1's commit.
async fn store(hub: &Hub, incoming: &[Incoming]) -> sqlx::Result<(Vec<Answer>, Vec<Stored>)> {
    let now = OffsetDateTime::now_utc();
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

fn new_message(config: &Config, incoming: &Incoming, now: OffsetDateTime) -> NewMessage {
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

fn fresh_item(message: &Message) -> Item {
    Item { key: Key { message: message.id, lane: Lane::ROUTE }, flow: message.flow }
}
