//! What happened to messages.

use posthorn_api::trace::v1::TraceMessageResponse;
use posthorn_mail::MessageId;
use prost::Message as _;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::trace::Record;

/// Adds to the traces of messages.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    rows: Vec<(MessageId, Vec<u8>)>,
    at: OffsetDateTime,
) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let (messages, events): (Vec<Uuid>, Vec<Vec<u8>>) =
        rows.into_iter().map(|(message, events)| (message.uuid(), events)).unzip();
    sqlx::query(
        "INSERT INTO spool.event (message_id, at, events) SELECT m, $2, e FROM UNNEST($1::uuid[], $3::bytea[]) AS n(m, e)",
    )
    .bind(messages)
    .bind(at)
    .bind(events)
    .execute(connection)
    .await?;
    Ok(())
}

/// All that is known of a message, in the order of time; `None` when nothing is. That it was accepted is in the message's
/// own row as long as it has not ended.
pub(crate) async fn of_message(
    connection: &mut PgConnection,
    id: MessageId,
) -> sqlx::Result<Option<TraceMessageResponse>> {
    let message = super::load::messages(connection, &[id]).await?.remove(&id);
    let rows: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT events FROM spool.event WHERE message_id = $1 ORDER BY at")
            .bind(id.uuid())
            .fetch_all(connection)
            .await?;
    if rows.is_empty() && message.is_none() {
        return Ok(None);
    }
    let mut trace = message.map_or_else(TraceMessageResponse::default, |message| TraceMessageResponse {
        pending: message.pending,
        ..Record::accepted(&message).trace
    });
    for row in rows {
        trace.merge(&row[..]).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    }
    trace.events.iter_mut().for_each(|event| event.message_id = id.to_string());
    trace.events.sort_by_key(|event| event.at.map(|at| (at.seconds, at.nanos)));
    // It may have ended between the two statements.
    trace.events.dedup();
    Ok(Some(trace))
}

/// Deletes at most `limit` of the rows older than `before`; returns how many.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: i64,
) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "DELETE FROM spool.event WHERE ctid = ANY(ARRAY(SELECT ctid FROM spool.event WHERE at < $1 LIMIT $2))",
    )
    .bind(before)
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes at most `limit` of the idempotency keys older than `before`; returns how many.
pub(crate) async fn forget_keys(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: i64,
) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "DELETE FROM spool.idempotency
         WHERE ctid = ANY(ARRAY(SELECT ctid FROM spool.idempotency WHERE created_at < $1 LIMIT $2))",
    )
    .bind(before)
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
