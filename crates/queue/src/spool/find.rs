//! Finding what is to be done: for the schedule, and by time.

use posthorn_mail::MessageId;
use sqlx::{PgConnection, PgExecutor, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Message;

use crate::schedule::{Flow, Item, Key, Kind, Lane};

/// Work that is owed, and since or from when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) kind: Kind,
    pub(crate) item: Item,
    pub(crate) at: OffsetDateTime,
}

type Row = (Uuid, i64, i16, i64, OffsetDateTime);

fn due((message, lane, state, flow, at): Row) -> Option<Due> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.state() as i16 == state)?;
    let key = Key { message: message.into(), lane: Lane::from_column(lane) };
    Some(Due { kind, item: Item { key, flow: Flow::from_column(flow) }, at })
}

/// All work of `limit` messages after `after`, and the last of these messages; `None` when there are no more.
pub(crate) async fn page(
    connection: &mut PgConnection,
    after: MessageId,
    limit: i64,
) -> sqlx::Result<Option<(MessageId, Vec<Due>)>> {
    let messages: Vec<Uuid> = sqlx::query_scalar(
        "SELECT message_id FROM spool.message WHERE message_id > $1 ORDER BY message_id LIMIT $2",
    )
    .bind(after.uuid())
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let Some(last) = messages.last() else { return Ok(None) };
    let last = MessageId::from(*last);
    Ok(Some((last, work_of(connection, messages).await?)))
}

/// Since when the oldest work of each kind has been due that nobody holds back; remote work in these lanes alone, if
/// they are known.
pub(crate) async fn oldest_due(
    postgres: impl PgExecutor<'_>,
    now: OffsetDateTime,
    remote: Option<&[Lane]>,
) -> sqlx::Result<Vec<(Kind, OffsetDateTime)>> {
    let rows: Vec<(i16, OffsetDateTime)> = sqlx::query_as(
        "SELECT r.state, min(r.next_attempt_at)
         FROM spool.recipient r JOIN spool.message m ON m.message_id = r.message_id
         WHERE r.next_attempt_at <= $1 AND NOT m.held AND NOT m.poison
           AND NOT EXISTS (SELECT FROM spool.suspension s WHERE s.destination = r.destination)
           AND (r.state <> $2 OR $3::bigint[] IS NULL OR r.lane = ANY($3))
         GROUP BY r.state",
    )
    .bind(now)
    .bind(Kind::Remote.state() as i16)
    .bind(remote.map(|lanes| lanes.iter().map(|lane| lane.column()).collect::<Vec<_>>()))
    .fetch_all(postgres)
    .await?;
    let kind = |state| Kind::ALL.into_iter().find(|kind| kind.state() as i16 == state);
    Ok(rows.into_iter().filter_map(|(state, at)| Some((kind(state)?, at))).collect())
}

/// All work of these messages, unless they are held or set aside.
pub(super) async fn work_of(connection: &mut PgConnection, messages: Vec<Uuid>) -> sqlx::Result<Vec<Due>> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT r.message_id, r.lane, r.state, m.flow, min(r.next_attempt_at)
         FROM spool.message m JOIN spool.recipient r ON r.message_id = m.message_id
         WHERE m.message_id = ANY($1) AND NOT m.held AND NOT m.poison AND r.next_attempt_at IS NOT NULL
         GROUP BY r.message_id, r.lane, r.state, m.flow",
    )
    .bind(messages)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(due).collect())
}

/// A recipient's place in the order of what is overdue: since when, of which message, its number.
pub(crate) type Place = (OffsetDateTime, MessageId, i32);

/// Work that should have been begun before `before`, beginning after the place `after`, in order; at most `limit`
/// recipients' worth. With the place of the last if there may be more.
pub(crate) async fn overdue(
    postgres: impl PgExecutor<'_>,
    after: Place,
    before: OffsetDateTime,
    limit: i64,
) -> sqlx::Result<(Vec<Due>, Option<Place>)> {
    let rows: Vec<(Uuid, i64, i16, i64, OffsetDateTime, i32)> = sqlx::query_as(
        "SELECT r.message_id, r.lane, r.state, m.flow, r.next_attempt_at, r.recipient_no
         FROM spool.recipient r JOIN spool.message m ON m.message_id = r.message_id
         WHERE r.next_attempt_at >= $1 AND r.next_attempt_at < $4
           AND (r.next_attempt_at, r.message_id, r.recipient_no) > ($1, $2, $3)
           AND NOT m.held AND NOT m.poison
         ORDER BY r.next_attempt_at, r.message_id, r.recipient_no LIMIT $5",
    )
    .bind(after.0)
    .bind(after.1.uuid())
    .bind(after.2)
    .bind(before)
    .bind(limit)
    .fetch_all(postgres)
    .await?;
    let last = rows.last().filter(|_| rows.len() as i64 >= limit);
    let last = last.map(|(message, _, _, _, at, no)| (*at, MessageId::from(*message), *no));
    let work = rows
        .into_iter()
        .filter_map(|(message, lane, state, flow, at, _)| due((message, lane, state, flow, at)));
    Ok((work.collect(), last))
}

/// When the next message must be looked at.
pub(crate) async fn next_timer(postgres: impl PgExecutor<'_>) -> sqlx::Result<Option<OffsetDateTime>> {
    sqlx::query_scalar("SELECT min(timer_at) FROM spool.message WHERE timer_at < 'infinity'")
        .fetch_one(postgres)
        .await
}

/// Messages that must be looked at by now, locked; what another replica looks at is passed over.
pub(crate) async fn timers(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    limit: i64,
) -> sqlx::Result<Vec<Message>> {
    let rows = sqlx::query(
        "SELECT * FROM spool.message WHERE timer_at <= $1 ORDER BY timer_at LIMIT $2
         FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(now)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(super::load::message).collect()
}

/// Puts off to `later` the message that has to be looked at first, and says which it is.
pub(crate) async fn postpone_timer(
    postgres: impl PgExecutor<'_>,
    later: OffsetDateTime,
) -> sqlx::Result<Option<MessageId>> {
    let id: Option<Uuid> = sqlx::query_scalar(
        "UPDATE spool.message SET timer_at = $1 WHERE message_id =
             (SELECT message_id FROM spool.message WHERE timer_at < $1 ORDER BY timer_at LIMIT 1
              FOR NO KEY UPDATE SKIP LOCKED)
         RETURNING message_id",
    )
    .bind(later)
    .fetch_optional(postgres)
    .await?;
    Ok(id.map(MessageId::from))
}

/// Notes how far messages' notices have come and when they are to be looked at next; `None`: not by time.
pub(crate) async fn set_timers(
    connection: &mut PgConnection,
    timers: &[(MessageId, usize, Option<OffsetDateTime>)],
) -> sqlx::Result<()> {
    if timers.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE spool.message m SET noticed = t.noticed, timer_at = coalesce(t.timer_at, 'infinity')
         FROM UNNEST($1::uuid[], $2::smallint[], $3::timestamptz[]) AS t(message_id, noticed, timer_at)
         WHERE m.message_id = t.message_id",
    )
    .bind(timers.iter().map(|t| t.0.uuid()).collect::<Vec<_>>())
    .bind(timers.iter().map(|t| t.1 as i16).collect::<Vec<_>>())
    .bind(timers.iter().map(|t| t.2).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Destinations that are suspended.
pub(crate) async fn suspended(postgres: impl PgExecutor<'_>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT destination FROM spool.suspension").fetch_all(postgres).await
}

/// Sets items aside: they are not given out until an operator says so. Returns which were not aside before.
pub(crate) async fn set_poison(
    connection: &mut PgConnection,
    ids: &[MessageId],
) -> sqlx::Result<Vec<MessageId>> {
    let rows = sqlx::query(
        "UPDATE spool.message SET poison = true WHERE message_id = ANY($1) AND NOT poison RETURNING message_id",
    )
    .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| row.try_get::<Uuid, _>(0).map(MessageId::from)).collect()
}

/// Which of these messages are in the spool.
pub(crate) async fn held(postgres: impl PgExecutor<'_>, ids: &[MessageId]) -> sqlx::Result<Vec<MessageId>> {
    let rows: Vec<Uuid> =
        sqlx::query_scalar("SELECT message_id FROM spool.message WHERE message_id = ANY($1)")
            .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
            .fetch_all(postgres)
            .await?;
    Ok(rows.into_iter().map(MessageId::from).collect())
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    /// Found by an audit: of so many recipients due at one instant the rest was passed over.
    #[tokio::test]
    async fn a_page_may_end_within_a_message() {
        let database = posthorn_testkit::stores::database().await;
        posthorn_content::migrate(&database).await.expect("content migrates");
        crate::migrate(&database).await.expect("spool migrates");
        let mut connection = PgConnection::connect(&database).await.expect("the database answers");
        sqlx::raw_sql(
            "INSERT INTO spool.message (message_id, sender, received_at, expires_at, timer_at, size, body, smtputf8, ret,
                 origin, traceparent, flow, recipients, pending)
             SELECT gen_random_uuid(), '', now(), now(), now(), 0, 0, false, 0, '', '', 0, 5, 5 FROM generate_series(1, 2);
             INSERT INTO spool.recipient (message_id, recipient_no, address, state, lane, next_attempt_at)
             SELECT message_id, no, '', 2, no, received_at - interval '1 hour'
             FROM spool.message, generate_series(1, 5) no",
        )
        .execute(&mut connection)
        .await
        .expect("a spool");
        let (mut place, mut lanes) =
            ((OffsetDateTime::UNIX_EPOCH, MessageId::from(Uuid::nil()), 0), Vec::new());
        loop {
            let now = OffsetDateTime::now_utc();
            let (due, next) = overdue(&mut connection, place, now, 3).await.expect("the database answers");
            lanes.extend(due.iter().map(|due| due.item.key.lane.column()));
            let Some(next) = next else { break };
            place = next;
        }
        assert_eq!(lanes, [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]);
    }
}
