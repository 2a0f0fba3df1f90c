//! Reading messages with those of their recipients that an item is for.

use std::collections::HashMap;

use posthorn_api::mail::v1 as wire;
use posthorn_api::trace::v1::Event;
use posthorn_mail::MessageId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::{Message, notify_of};
use crate::message::{Place, Recipient, State, Words};
use crate::schedule::{Flow, Key, Lane};

/// The messages, locked until the end of the transaction; in the order of their ids, so that two transactions do not
/// wait for each other.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    ids: &[MessageId],
) -> sqlx::Result<HashMap<MessageId, Message>> {
    let rows = sqlx::query(
        "SELECT * FROM spool.message WHERE message_id = ANY($1) ORDER BY message_id FOR NO KEY UPDATE",
    )
    .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| message(row).map(|m| (m.id, m))).collect()
}

/// The messages, to be read.
pub(crate) async fn messages(
    connection: &mut PgConnection,
    ids: &[MessageId],
) -> sqlx::Result<HashMap<MessageId, Message>> {
    let rows = sqlx::query("SELECT * FROM spool.message WHERE message_id = ANY($1)")
        .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| message(row).map(|m| (m.id, m))).collect()
}

/// The waiting recipients of items.
pub(crate) async fn waiting(
    connection: &mut PgConnection,
    keys: &[Key],
) -> sqlx::Result<HashMap<Key, Vec<Recipient>>> {
    let rows = sqlx::query(
        // OFFSET 0 keeps the planner from a join over all that waits: on a table that was never analysed it takes a message
        // for one of 200, with hundreds of recipients each.
        "SELECT r.* FROM UNNEST($1::uuid[], $2::bigint[]) AS k(message_id, lane),
         LATERAL (SELECT * FROM spool.recipient r
                  WHERE r.message_id = k.message_id AND r.lane = k.lane AND r.next_attempt_at IS NOT NULL
                  OFFSET 0) r
         ORDER BY r.message_id, r.recipient_no",
    )
    .bind(keys.iter().map(|k| k.message.uuid()).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| k.lane.column()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let mut waiting: HashMap<Key, Vec<Recipient>> = HashMap::with_capacity(keys.len());
    for row in &rows {
        let lane = Lane::from_column(row.try_get("lane")?);
        let key = Key { message: row.try_get::<Uuid, _>("message_id")?.into(), lane };
        waiting.entry(key).or_default().push(recipient(row)?);
    }
    Ok(waiting)
}

/// All recipients of messages, ended ones too.
pub(crate) async fn recipients(
    connection: &mut PgConnection,
    ids: &[MessageId],
) -> sqlx::Result<HashMap<MessageId, Vec<Recipient>>> {
    let rows = sqlx::query(
        "SELECT * FROM spool.recipient WHERE message_id = ANY($1) ORDER BY message_id, recipient_no",
    )
    .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let mut all: HashMap<MessageId, Vec<Recipient>> = HashMap::new();
    for row in &rows {
        all.entry(row.try_get::<Uuid, _>("message_id")?.into()).or_default().push(recipient(row)?);
    }
    Ok(all)
}

/// Which of these addresses are final recipients of these messages already: routed, whatever became of them.
pub(crate) async fn routed(
    connection: &mut PgConnection,
    addresses: &[(MessageId, &str)],
) -> sqlx::Result<Vec<(MessageId, String)>> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT r.message_id, r.address FROM UNNEST($1::uuid[], $2::text[]) AS a(message_id, address),
         LATERAL (SELECT * FROM spool.recipient r
                  WHERE r.message_id = a.message_id AND r.address = a.address AND r.place IS NOT NULL AND r.state <> $3
                  OFFSET 0) r",
    )
    .bind(addresses.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(addresses.iter().map(|(_, address)| *address).collect::<Vec<_>>())
    .bind(State::Expanded as i16)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, address)| (id.into(), address)).collect())
}

pub(super) fn message(row: &PgRow) -> sqlx::Result<Message> {
    let body: i16 = row.try_get("body")?;
    let ret: i16 = row.try_get("ret")?;
    let count = |column: &str| row.try_get::<i32, _>(column).map(|n| n as u32);
    Ok(Message {
        id: row.try_get::<Uuid, _>("message_id")?.into(),
        sender: row.try_get("sender")?,
        received_at: row.try_get("received_at")?,
        expires_at: row.try_get("expires_at")?,
        size: row.try_get::<i64, _>("size")? as u64,
        body: wire::Body::try_from(i32::from(body)).unwrap_or_default().into(),
        smtputf8: row.try_get("smtputf8")?,
        ret: wire::Ret::try_from(i32::from(ret)).unwrap_or_default().into(),
        envelope_id: row.try_get("envelope_id")?,
        origin: decode(row, "origin")?,
        traceparent: row.try_get("traceparent")?,
        flow: Flow::from_column(row.try_get("flow")?),
        held: row.try_get("held")?,
        poison: row.try_get("poison")?,
        noticed: row.try_get::<i16, _>("noticed")? as usize,
        recipients: count("recipients")?,
        pending: count("pending")?,
        maybe_local: row.try_get("maybe_local")?,
    })
}

pub(super) fn recipient(row: &PgRow) -> sqlx::Result<Recipient> {
    let state: i16 = row.try_get("state")?;
    let destination: Option<&str> = row.try_get("destination")?;
    let place = match (row.try_get::<Option<&[u8]>, _>("place")?, destination) {
        (None, _) => Place::Unknown,
        (Some(_), None) => Place::Local(decode(row, "place")?),
        (Some(_), Some(_)) => Place::Remote(decode(row, "place")?),
    };
    Ok(Recipient {
        no: row.try_get::<i32, _>("recipient_no")? as u32,
        address: row.try_get("address")?,
        notify: notify_of(row.try_get("notify")?),
        original: row.try_get("original")?,
        sender: row.try_get("sender")?,
        parent: row.try_get::<Option<i32>, _>("parent")?.map(|no| no as u32),
        state: State::ALL.into_iter().find(|s| *s as i16 == state).ok_or_else(|| unreadable("state"))?,
        place,
        attempts: row.try_get::<i32, _>("attempts")? as u32,
        next_attempt_at: row.try_get("next_attempt_at")?,
        last: words(row)?,
    })
}

fn words(row: &PgRow) -> sqlx::Result<Option<Words>> {
    if row.try_get::<Option<&[u8]>, _>("last")?.is_none() {
        return Ok(None);
    }
    let event: Event = decode(row, "last")?;
    let status = event.status.and_then(|status| status.try_into().ok()).ok_or_else(|| unreadable("last"))?;
    let at = event.at.and_then(posthorn_api::time_of).ok_or_else(|| unreadable("last"))?;
    Ok(Some(Words { status, server: event.server.map(Into::into), at }))
}

fn decode<T: prost::Message + Default>(row: &PgRow, column: &'static str) -> sqlx::Result<T> {
    T::decode(row.try_get::<&[u8], _>(column)?).map_err(|_| unreadable(column))
}

fn unreadable(column: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.into(), source: "is not what Posthorn writes there".into() }
}
