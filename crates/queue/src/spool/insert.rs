//! Taking messages in. Each function is one statement for a whole batch, in the caller's transaction.

use std::collections::{HashMap, HashSet};

use posthorn_api::mail::v1 as wire;
use posthorn_content::Chunks;
use posthorn_mail::MessageId;
use prost::Message as _;
use sqlx::postgres::{PgArguments, PgHasArrayType};
use sqlx::query::QueryScalar;
use sqlx::{Encode, PgConnection, PgPool, Postgres, Type};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Message, notify_column};
use crate::message::{Recipient, State};
use crate::schedule::Lane;

/// A message with its recipients, on its way into the spool.
#[derive(Debug)]
pub(crate) struct NewMessage {
    pub(crate) message: Message,
    /// When it must be looked at for the first time.
    pub(crate) timer_at: OffsetDateTime,
    pub(crate) recipients: Vec<Recipient>,
}

/// An idempotency key that a message comes with.
#[derive(Clone, Debug)]
pub(crate) struct NewKey {
    pub(crate) scope: String,
    pub(crate) key: String,
    pub(crate) digest: Vec<u8>,
    pub(crate) answer: Vec<u8>,
    pub(crate) message: MessageId,
}

/// What an idempotency key was first used for.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct KnownKey {
    pub(crate) digest: Vec<u8>,
    pub(crate) answer: Vec<u8>,
    pub(crate) message_id: Uuid,
}

/// Writes keys down; returns which of them are new. The others, and those of transactions that are under way, are
/// waited for. Callers sort them, so that two transactions do not wait for each other.
pub(crate) async fn keys(
    connection: &mut PgConnection,
    keys: &[NewKey],
) -> sqlx::Result<HashSet<(String, String)>> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "INSERT INTO spool.idempotency (scope, key, digest, answer, message_id)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::uuid[])
         ON CONFLICT (scope, key) DO NOTHING RETURNING scope, key",
    )
    .bind(keys.iter().map(|k| k.scope.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| k.key.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| &k.digest[..]).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| &k.answer[..]).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| k.message.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// What keys were first used for.
pub(crate) async fn known_keys(
    connection: &mut PgConnection,
    keys: &[(String, String)],
) -> sqlx::Result<HashMap<(String, String), KnownKey>> {
    type Row = (String, String, Vec<u8>, Vec<u8>, Uuid);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT i.scope, i.key, i.digest, i.answer, i.message_id FROM spool.idempotency i
         JOIN UNNEST($1::text[], $2::text[]) AS k(scope, key) ON i.scope = k.scope AND i.key = k.key",
    )
    .bind(keys.iter().map(|k| k.0.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| k.1.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let known = |(scope, key, digest, answer, message_id): Row| {
        ((scope, key), KnownKey { digest, answer, message_id })
    };
    Ok(rows.into_iter().map(known).collect())
}

/// Inserts messages with their recipients, who are all fresh, and their contents, as far as these are given; returns
/// which of them are new. One that is there already, or has ended, is not touched: the caller repeats itself, its id says
/// so.
pub(crate) async fn messages(
    connection: &mut PgConnection,
    new: &[NewMessage],
    contents: Chunks<'_>,
) -> sqlx::Result<HashSet<MessageId>> {
    let all = || new.iter().map(|n| &n.message);
    let recipients = || new.iter().flat_map(|n| n.recipients.iter().map(|r| (n.message.id.uuid(), r)));
    let is_single = new.len() == 1 && new[0].recipients.len() == 1 && contents.ids.len() == 1;
    let query = sqlx::query_scalar(if is_single { INSERT_ONE } else { INSERT_MANY });
    let ids: Vec<Uuid> = Rows { query, is_single }
        .bind(all().map(|m| m.id.uuid()))
        .bind(all().map(|m| m.sender.as_str()))
        .bind(all().map(|m| m.received_at))
        .bind(all().map(|m| m.expires_at))
        .bind(new.iter().map(|n| n.timer_at))
        .bind(all().map(|m| i64::try_from(m.size).unwrap_or(i64::MAX)))
        .bind(all().map(|m| wire::Body::from(m.body) as i16))
        .bind(all().map(|m| m.smtputf8))
        .bind(all().map(|m| wire::Ret::from(m.ret) as i16))
        .bind(all().map(|m| m.envelope_id.as_deref()))
        .bind(all().map(|m| m.origin.encode_to_vec()))
        .bind(all().map(|m| m.traceparent.as_str()))
        .bind(all().map(|m| m.flow.column()))
        .bind(all().map(|m| m.recipients as i32))
        .bind(recipients().map(|(id, _)| id))
        .bind(recipients().map(|(_, r)| r.no as i32))
        .bind(recipients().map(|(_, r)| r.address.as_str()))
        .bind(recipients().map(|(_, r)| notify_column(r.notify)))
        .bind(recipients().map(|(_, r)| r.original.as_deref()))
        .bind(recipients().map(|(_, r)| r.next_attempt_at))
        .bind(contents.ids.into_iter())
        .bind(contents.seqs.into_iter())
        .bind(contents.data.into_iter())
        .query
        .bind(State::Fresh as i16)
        .bind(Lane::ROUTE.column())
        .fetch_all(connection)
        .await?;
    Ok(ids.into_iter().map(MessageId::from).collect())
}

/// The statement of [`messages`], by where the rows come from.
macro_rules! insert {
    ($messages:literal, $recipients:literal, $contents:literal) => {
        concat!(
            "WITH new AS (
                 INSERT INTO spool.message (message_id, sender, received_at, expires_at, timer_at, size, body, smtputf8,
                     ret, envelope_id, origin, traceparent, flow, recipients, pending) ",
            $messages,
            // One that has ended is here again: a statement that was given up on and came through late. (OFFSET 0: one
            // look for each, no join with all that ever happened.)
            " WHERE NOT EXISTS (SELECT FROM spool.event e WHERE e.message_id = m.message_id OFFSET 0)
                 ON CONFLICT (message_id) DO NOTHING RETURNING message_id),
             fresh AS (
                 INSERT INTO spool.recipient (message_id, recipient_no, address, notify, original, next_attempt_at,
                     state, lane) ",
            $recipients,
            "),
             contents AS (INSERT INTO content.chunk (content_id, seq, data) ",
            $contents,
            ") SELECT message_id FROM new",
        )
    };
}

const INSERT_MANY: &str = insert!(
    "SELECT *, recipients FROM UNNEST($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[],
         $5::timestamptz[], $6::bigint[], $7::smallint[], $8::boolean[], $9::smallint[], $10::text[], $11::bytea[],
         $12::text[], $13::bigint[], $14::integer[]) AS m(message_id, sender, received_at, expires_at, timer_at, size,
         body, smtputf8, ret, envelope_id, origin, traceparent, flow, recipients)",
    "SELECT r.*, $24, $25 FROM UNNEST($15::uuid[], $16::integer[], $17::text[], $18::smallint[], $19::text[],
         $20::timestamptz[]) AS r(message_id, no, address, notify, original, next_attempt_at)
     JOIN new USING (message_id)",
    // No join: it might sort the bytes.
    "SELECT * FROM UNNEST($21::uuid[], $22::integer[], $23::bytea[]) AS c(content_id, seq, data)
     WHERE content_id = ANY(ARRAY(SELECT message_id FROM new))"
);

/// One message with one recipient and one chunk: 0.1 ms less for Postgres, which a message that comes alone waits for.
const INSERT_ONE: &str = insert!(
    "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14 FROM (SELECT $1) AS m(message_id)",
    "SELECT $15, $16, $17, $18, $19, $20, $24, $25 FROM new",
    "SELECT $21, $22, $23 FROM new"
);

/// Values of a statement, column by column: as arrays, or each by itself where there is a single row.
struct Rows<'q, O> {
    query: QueryScalar<'q, Postgres, O, PgArguments>,
    is_single: bool,
}

impl<'q, O> Rows<'q, O> {
    fn bind<T>(mut self, mut values: impl Iterator<Item = T>) -> Self
    where
        T: Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType + 'q,
    {
        self.query = match self.is_single {
            true => self.query.bind(values.next()),
            false => self.query.bind(values.collect::<Vec<T>>()),
        };
        self
    }
}

/// Of these messages, which were inserted just now, takes those back that have ended before; returns them. What happened
/// to them stays known for days. Looked for after the insert: until this transaction ends, no other inserts them.
pub(crate) async fn take_back_ended(
    connection: &mut PgConnection,
    repeated: &[MessageId],
) -> sqlx::Result<Vec<MessageId>> {
    if repeated.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "WITH ended AS (
             DELETE FROM spool.message m WHERE message_id = ANY($1)
                 AND EXISTS (SELECT FROM spool.event e WHERE e.message_id = m.message_id)
             RETURNING message_id),
         with_it AS (DELETE FROM spool.recipient r USING ended WHERE r.message_id = ended.message_id)
         SELECT message_id FROM ended",
    )
    .bind(repeated.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(MessageId::from).collect())
}

/// Whether a message that came in chunks was kept; one that was not never will be. Its place on the list of uploads
/// belongs to one transaction at a time: this one, or the one that accepts it.
pub(crate) async fn settle(pool: &PgPool, id: MessageId) -> sqlx::Result<bool> {
    let mut transaction = pool.begin().await?;
    let is_released = posthorn_content::lock(&mut transaction, id).await?;
    let kept: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM spool.message WHERE message_id = $1)
             OR EXISTS (SELECT FROM spool.event WHERE message_id = $1)",
    )
    .bind(id.uuid())
    .fetch_one(&mut *transaction)
    .await?;
    if is_released && !kept {
        posthorn_content::delete(&mut transaction, &[id]).await?;
    }
    transaction.commit().await?;
    Ok(kept)
}

/// Inserts recipients that have come up, fresh or already placed.
pub(crate) async fn recipients(
    connection: &mut PgConnection,
    new: &[(MessageId, &Recipient)],
) -> sqlx::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let columns = super::update::Columns::of(new);
    sqlx::query(
        "INSERT INTO spool.recipient (message_id, recipient_no, sender, state, lane, place, destination, attempts,
             next_attempt_at, last, address, notify, original, parent)
         SELECT * FROM UNNEST($1::uuid[], $2::integer[], $3::text[], $4::smallint[], $5::bigint[], $6::bytea[],
             $7::text[], $8::integer[], $9::timestamptz[], $10::bytea[], $11::text[], $12::smallint[], $13::text[],
             $14::integer[])",
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
    .bind(new.iter().map(|(_, r)| r.address.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, r)| notify_column(r.notify)).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, r)| r.original.as_deref()).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, r)| r.parent.map(|no| no as i32)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// The lane that a recipient waits in.
pub(crate) fn lane_of(recipient: &Recipient) -> Lane {
    match (recipient.state, &recipient.place) {
        (State::Fresh, _) | (_, crate::message::Place::Unknown) => Lane::ROUTE,
        (_, crate::message::Place::Local(_)) => Lane::LOCAL,
        (_, crate::message::Place::Remote(target)) => Lane::remote(&target.destination),
    }
}
