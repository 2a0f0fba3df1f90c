//! What outcomes change. Each function is one statement for a whole batch, in the caller's transaction.

use std::collections::{HashMap, HashSet};

use posthorn_api::trace::v1::Event;
use posthorn_mail::MessageId;
use prost::Message as _;
use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Message, insert::lane_of};
use crate::message::{Place, Recipient, State, Words};

/// The columns of recipients that change, as arrays.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) message_id: Vec<Uuid>,
    pub(super) no: Vec<i32>,
    pub(super) sender: Vec<Option<&'a str>>,
    pub(super) state: Vec<i16>,
    pub(super) lane: Vec<i64>,
    pub(super) place: Vec<Option<Vec<u8>>>,
    pub(super) destination: Vec<Option<&'a str>>,
    pub(super) attempts: Vec<i32>,
    pub(super) next_attempt_at: Vec<Option<OffsetDateTime>>,
    pub(super) last: Vec<Option<Vec<u8>>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(recipients: &[(MessageId, &'a Recipient)]) -> Self {
        let mut columns = Self::default();
        for (message, recipient) in recipients {
            let (place, destination) = match &recipient.place {
                Place::Unknown => (None, None),
                Place::Local(target) => (Some(target.encode_to_vec()), None),
                Place::Remote(target) => (Some(target.encode_to_vec()), Some(target.destination.as_str())),
            };
            columns.message_id.push(message.uuid());
            columns.no.push(recipient.no as i32);
            columns.sender.push(recipient.sender.as_deref());
            columns.state.push(recipient.state as i16);
            columns.lane.push(lane_of(recipient).column());
            columns.place.push(place);
            columns.destination.push(destination);
            columns.attempts.push(recipient.attempts as i32);
            columns.next_attempt_at.push(recipient.next_attempt_at);
            columns.last.push(recipient.last.as_ref().map(words_column));
        }
        columns
    }
}

/// The words of an attempt as they are stored: as an event of the trace.
fn words_column(words: &Words) -> Vec<u8> {
    Event {
        at: Some(posthorn_api::timestamp(words.at)),
        status: Some(words.status.clone().into()),
        server: words.server.clone().map(Into::into),
        ..Default::default()
    }
    .encode_to_vec()
}

/// Writes what has become of recipients.
pub(crate) async fn recipients(
    connection: &mut PgConnection,
    changed: &[(MessageId, &Recipient)],
) -> sqlx::Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(changed);
    sqlx::query(
        "UPDATE spool.recipient r SET sender = c.sender, state = c.state, lane = c.lane, place = c.place,
             destination = c.destination, attempts = c.attempts, next_attempt_at = c.next_attempt_at, last = c.last
         FROM UNNEST($1::uuid[], $2::integer[], $3::text[], $4::smallint[], $5::bigint[], $6::bytea[], $7::text[],
             $8::integer[], $9::timestamptz[], $10::bytea[])
             AS c(message_id, no, sender, state, lane, place, destination, attempts, next_attempt_at, last)
         WHERE r.message_id = c.message_id AND r.recipient_no = c.no",
    )
    .bind(columns.message_id)
    .bind(columns.no)
    .bind(columns.sender)
    .bind(columns.state)
    .bind(columns.lane)
    .bind(columns.place)
    .bind(columns.destination)
    .bind(columns.attempts)
    .bind(columns.next_attempt_at)
    .bind(columns.last)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes the counts and marks of messages that go on.
pub(crate) async fn messages(connection: &mut PgConnection, changed: &[&Message]) -> sqlx::Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE spool.message m SET recipients = c.recipients, pending = c.pending, maybe_local = c.maybe_local
         FROM UNNEST($1::uuid[], $2::integer[], $3::integer[], $4::boolean[])
             AS c(message_id, recipients, pending, maybe_local)
         WHERE m.message_id = c.message_id",
    )
    .bind(changed.iter().map(|m| m.id.uuid()).collect::<Vec<_>>())
    .bind(changed.iter().map(|m| m.recipients as i32).collect::<Vec<_>>())
    .bind(changed.iter().map(|m| m.pending as i32).collect::<Vec<_>>())
    .bind(changed.iter().map(|m| m.maybe_local).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends messages all of whose recipients have them, in one statement: deletes them and writes down what happened. Returns
/// which have ended: those of whose recipients none had ended before, by an operator or their age.
pub(crate) async fn end_delivered(
    postgres: impl PgExecutor<'_>,
    messages: &[&Message],
    events: &[Vec<u8>],
    at: OffsetDateTime,
) -> sqlx::Result<HashSet<MessageId>> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "WITH delivered AS (
             SELECT * FROM UNNEST($1::uuid[], $2::integer[], $3::bytea[]) AS d(message_id, recipients, events)),
         gone AS (
             DELETE FROM spool.message m USING delivered d
             WHERE m.message_id = d.message_id AND m.recipients = d.recipients AND m.pending = d.recipients
             RETURNING m.message_id, d.events),
         with_it AS (DELETE FROM spool.recipient r USING gone WHERE r.message_id = gone.message_id),
         written AS (INSERT INTO spool.event (message_id, at, events) SELECT message_id, $4, events FROM gone)
         SELECT message_id FROM gone",
    )
    .bind(messages.iter().map(|m| m.id.uuid()).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.recipients as i32).collect::<Vec<_>>())
    .bind(events)
    .bind(at)
    .fetch_all(postgres)
    .await?;
    Ok(ids.into_iter().map(MessageId::from).collect())
}

/// How the recipients of a message that has ended were placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Some lie, or may lie, in a mailbox here.
    pub(crate) local: bool,
    /// All of those do, for certain.
    pub(crate) all_delivered: bool,
    /// Some had no place when they ended: in hand they may have come to a mailbox that the ledger does not know of.
    pub(crate) unplaced: bool,
}

/// Deletes messages that have ended, and their recipients; tells how these had been placed. `known` are the states
/// of recipients that this transaction has changed and not written.
pub(crate) async fn end_messages(
    connection: &mut PgConnection,
    ids: &[MessageId],
    known: &HashMap<(MessageId, u32), State>,
) -> sqlx::Result<HashMap<MessageId, Ended>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let uuids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows: Vec<(Uuid, i32, i16, Option<bool>)> = sqlx::query_as(
        "WITH gone AS (DELETE FROM spool.message WHERE message_id = ANY($1))
         DELETE FROM spool.recipient WHERE message_id = ANY($1)
         RETURNING message_id, recipient_no, state, CASE WHEN place IS NOT NULL THEN destination IS NULL END",
    )
    .bind(uuids)
    .fetch_all(connection)
    .await?;
    let begin = Ended { local: false, all_delivered: true, unplaced: false };
    let mut ended: HashMap<MessageId, Ended> = ids.iter().map(|id| (*id, begin)).collect();
    for (id, no, state, local) in rows {
        let id = MessageId::from(id);
        let is = |wanted| match known.get(&(id, no as u32)) {
            Some(known) => *known == wanted,
            None => state == wanted as i16,
        };
        let ended = ended.entry(id).or_insert(begin);
        match local {
            Some(true) => {
                ended.local = true;
                ended.all_delivered &= is(State::Delivered);
            }
            Some(false) => {}
            // What came to others was not delivered itself.
            None => ended.unplaced |= !is(State::Expanded),
        }
    }
    Ok(ended)
}
