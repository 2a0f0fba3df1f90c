//! What operators see and do.

use std::collections::HashMap;

use posthorn_api::trace::v1::Event;
use posthorn_mail::MessageId;
use prost::Message as _;
use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, QueryBuilder, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Message;
use super::find::Due;
use super::load;
use crate::message::{Recipient, State};

/// Which messages; all conditions that are set must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    pub(crate) message: Option<MessageId>,
    pub(crate) sender: Option<String>,
    pub(crate) recipient: Option<String>,
    /// A recipient's.
    pub(crate) domain: Option<String>,
    pub(crate) destination: Option<String>,
    pub(crate) state: Option<State>,
    pub(crate) received_before: Option<OffsetDateTime>,
    pub(crate) held: bool,
    pub(crate) poison: bool,
}

impl Condition {
    /// Adds ` AND …` for each condition on `spool.message m`.
    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(id) = self.message {
            query.push(" AND m.message_id = ").push_bind(id.uuid());
        }
        if let Some(sender) = &self.sender {
            query.push(" AND m.sender = ").push_bind(sender.clone());
        }
        if let Some(before) = self.received_before {
            query.push(" AND m.received_at < ").push_bind(before);
        }
        if self.held {
            query.push(" AND m.held");
        }
        if self.poison {
            query.push(" AND m.poison");
        }
        if self.recipient.is_none()
            && self.domain.is_none()
            && self.destination.is_none()
            && self.state.is_none()
        {
            return;
        }
        // One recipient must meet all that is said of recipients. An ended state is asked for by name only.
        query.push(" AND EXISTS (SELECT FROM spool.recipient r WHERE r.message_id = m.message_id");
        match self.state {
            Some(state) => query.push(" AND r.state = ").push_bind(state as i16),
            None => query.push(" AND r.next_attempt_at IS NOT NULL"),
        };
        if let Some(recipient) = &self.recipient {
            query.push(" AND r.address = ").push_bind(recipient.clone());
        }
        if let Some(domain) = &self.domain {
            query
                .push(" AND lower(substring(r.address FROM '@([^@]*)$')) = ")
                .push_bind(domain.to_lowercase());
        }
        if let Some(destination) = &self.destination {
            query.push(" AND r.destination = ").push_bind(destination.clone());
        }
        query.push(")");
    }
}

/// Messages in the spool, and their bytes.
pub(crate) async fn size(postgres: impl PgExecutor<'_>) -> sqlx::Result<(u64, u64)> {
    let (messages, bytes): (i64, i64) =
        sqlx::query_as("SELECT count(*), coalesce(sum(size), 0)::bigint FROM spool.message")
            .fetch_one(postgres)
            .await?;
    Ok((messages as u64, bytes as u64))
}

/// The messages after `after`, in the order in which they came, at most `limit`.
pub(crate) async fn list(
    pool: &PgPool,
    condition: &Condition,
    after: MessageId,
    limit: u32,
) -> sqlx::Result<Vec<Message>> {
    let mut query = QueryBuilder::new("SELECT * FROM spool.message m WHERE m.message_id > ");
    query.push_bind(after.uuid());
    condition.push(&mut query);
    query.push(" ORDER BY m.message_id LIMIT ").push_bind(i64::from(limit));
    query.build().fetch_all(pool).await?.iter().map(load::message).collect()
}

/// At most `each` of each message's waiting recipients.
pub(crate) async fn some_recipients(
    pool: &PgPool,
    ids: &[MessageId],
    each: i64,
) -> sqlx::Result<HashMap<MessageId, Vec<Recipient>>> {
    let rows = sqlx::query(
        "SELECT r.* FROM UNNEST($1::uuid[]) AS m(message_id), LATERAL (
             SELECT * FROM spool.recipient r WHERE r.message_id = m.message_id AND r.next_attempt_at IS NOT NULL
             ORDER BY r.recipient_no LIMIT $2) r",
    )
    .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .bind(each)
    .fetch_all(pool)
    .await?;
    let mut some: HashMap<MessageId, Vec<Recipient>> = HashMap::new();
    for row in &rows {
        some.entry(row.try_get::<Uuid, _>("message_id")?.into()).or_default().push(load::recipient(row)?);
    }
    Ok(some)
}

/// Ids of messages after `after` that meet a condition, at most `limit`.
pub(crate) async fn select(
    connection: &mut PgConnection,
    condition: &Condition,
    after: MessageId,
    limit: i64,
) -> sqlx::Result<Vec<MessageId>> {
    let mut query = QueryBuilder::new("SELECT m.message_id FROM spool.message m WHERE m.message_id > ");
    query.push_bind(after.uuid());
    condition.push(&mut query);
    query.push(" ORDER BY m.message_id LIMIT ").push_bind(limit);
    let ids: Vec<Uuid> = query.build_query_scalar().fetch_all(connection).await?;
    Ok(ids.into_iter().map(MessageId::from).collect())
}

/// Holds messages; returns which were not held.
pub(crate) async fn hold(connection: &mut PgConnection, ids: &[MessageId]) -> sqlx::Result<Vec<MessageId>> {
    changed(
        connection,
        "UPDATE spool.message SET held = true WHERE message_id = ANY($1) AND NOT held RETURNING message_id",
        ids,
    )
    .await
}

/// Releases messages; returns which were held. One that is past its end has a last attempt before it is given up.
pub(crate) async fn release(
    connection: &mut PgConnection,
    ids: &[MessageId],
) -> sqlx::Result<Vec<MessageId>> {
    changed(
        connection,
        "UPDATE spool.message SET held = false,
             timer_at = CASE WHEN timer_at = 'infinity' THEN now() + interval '10 minutes' ELSE timer_at END
         WHERE message_id = ANY($1) AND held RETURNING message_id",
        ids,
    )
    .await
}

/// Makes the next attempts due at `now`, and takes messages back that were set aside; returns which are waiting.
pub(crate) async fn retry(
    connection: &mut PgConnection,
    ids: &[MessageId],
    now: OffsetDateTime,
) -> sqlx::Result<Vec<MessageId>> {
    sqlx::query("UPDATE spool.message SET poison = false WHERE message_id = ANY($1) AND poison")
        .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    let rows: Vec<Uuid> = sqlx::query_scalar(
        "WITH due AS (
             UPDATE spool.recipient SET next_attempt_at = least(next_attempt_at, $2)
             WHERE message_id = ANY($1) AND next_attempt_at IS NOT NULL RETURNING message_id)
         SELECT DISTINCT message_id FROM due",
    )
    .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .bind(now)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(MessageId::from).collect())
}

async fn changed(
    connection: &mut PgConnection,
    statement: &'static str,
    ids: &[MessageId],
) -> sqlx::Result<Vec<MessageId>> {
    let rows: Vec<Uuid> = sqlx::query_scalar(statement)
        .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(MessageId::from).collect())
}

/// All work of these messages, unless they are held or set aside.
pub(crate) async fn work(connection: &mut PgConnection, ids: &[MessageId]) -> sqlx::Result<Vec<Due>> {
    super::find::work_of(connection, ids.iter().map(|id| id.uuid()).collect()).await
}

/// The destinations that mail for a domain waits for.
pub(crate) async fn destinations_of(pool: &PgPool, domain: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT DISTINCT destination FROM spool.recipient
         WHERE destination IS NOT NULL AND next_attempt_at IS NOT NULL
           AND lower(substring(address FROM '@([^@]*)$')) = $1",
    )
    .bind(domain.to_lowercase())
    .fetch_all(pool)
    .await
}

/// Notes that destinations are suspended: `name` itself, and those that stand for it as a domain.
pub(crate) async fn suspend(
    pool: &PgPool,
    name: &str,
    destinations: &[String],
    reason: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO spool.suspension (destination, reason, domain)
         SELECT d, $2, nullif($3, d) FROM UNNEST($1::text[]) AS n(d)
         ON CONFLICT (destination) DO UPDATE SET reason = excluded.reason",
    )
    .bind(destinations)
    .bind(reason)
    .bind(name)
    .execute(pool)
    .await?;
    Ok(())
}

/// Suspends those of these destinations that are of a suspended domain, and returns them. Columns: destination, domain.
pub(crate) async fn suspend_with_domain(
    connection: &mut PgConnection,
    (destinations, domains): &(Vec<&str>, Vec<&str>),
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "INSERT INTO spool.suspension (destination, reason, domain)
         SELECT DISTINCT ON (n.destination) n.destination, s.reason, n.domain
         FROM UNNEST($1::text[], $2::text[]) AS n(destination, domain)
         JOIN spool.suspension s ON s.destination = n.domain
         ON CONFLICT (destination) DO NOTHING RETURNING destination",
    )
    .bind(destinations)
    .bind(domains)
    .fetch_all(connection)
    .await
}

/// The destinations that were suspended for a domain.
pub(crate) async fn suspended_for(pool: &PgPool, domain: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT destination FROM spool.suspension WHERE domain = $1")
        .bind(domain)
        .fetch_all(pool)
        .await
}

/// Notes that destinations are no longer suspended; returns which were.
pub(crate) async fn resume(pool: &PgPool, destinations: &[String]) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("DELETE FROM spool.suspension WHERE destination = ANY($1) RETURNING destination")
        .bind(destinations)
        .fetch_all(pool)
        .await
}

/// How many wait at a stage.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Stage {
    pub(crate) state: i16,
    pub(crate) waiting: i64,
    pub(crate) deferred: i64,
    pub(crate) oldest: OffsetDateTime,
    /// By the age of their messages: younger than the first of [`AGES`], the second ..., and those that are older.
    pub(crate) ages: Vec<i64>,
}

/// The ages by which what waits is counted, in hours.
pub(crate) const AGES: [f64; 5] = [1.0 / 12.0, 1.0, 4.0, 24.0, 48.0];

/// Counts the waiting recipients by stage.
pub(crate) async fn stages(pool: &PgPool, now: OffsetDateTime) -> sqlx::Result<Vec<Stage>> {
    sqlx::query_as(
        "SELECT state, count(*) AS waiting, count(*) FILTER (WHERE next_attempt_at > $1) AS deferred,
                min(received_at) AS oldest,
                ARRAY[count(*) FILTER (WHERE age = 0), count(*) FILTER (WHERE age = 1),
                      count(*) FILTER (WHERE age = 2), count(*) FILTER (WHERE age = 3),
                      count(*) FILTER (WHERE age = 4), count(*) FILTER (WHERE age = 5)] AS ages
         FROM (SELECT r.state, r.next_attempt_at, m.received_at,
                      width_bucket(extract(epoch FROM $1 - m.received_at)::float8, $2::float8[]) AS age
               FROM spool.recipient r JOIN spool.message m USING (message_id)
               WHERE r.next_attempt_at IS NOT NULL) w
         GROUP BY state ORDER BY state",
    )
    .bind(now)
    .bind(AGES.map(|hours| hours * 3600.0).to_vec())
    .fetch_all(pool)
    .await
}

/// How many wait for a destination.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) destination: String,
    pub(crate) waiting: u64,
    pub(crate) oldest: Option<OffsetDateTime>,
    pub(crate) suspended: bool,
    /// Of its recipients' last attempts.
    pub(crate) last: Option<Event>,
}

/// The destinations with most waiting, and those that are suspended.
pub(crate) async fn destinations(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<Waiting>> {
    let rows = sqlx::query(
        "WITH waiting AS (
             SELECT r.destination, count(*) AS waiting, min(m.received_at) AS oldest
             FROM spool.recipient r JOIN spool.message m USING (message_id)
             WHERE r.destination IS NOT NULL AND r.next_attempt_at IS NOT NULL GROUP BY r.destination)
         SELECT coalesce(w.destination, s.destination) AS destination, coalesce(w.waiting, 0) AS waiting, w.oldest,
                s.destination IS NOT NULL AS suspended,
                (SELECT l.last FROM spool.recipient l WHERE l.destination = w.destination AND l.last IS NOT NULL
                 ORDER BY l.next_attempt_at DESC NULLS LAST LIMIT 1) AS last
         FROM waiting w FULL JOIN spool.suspension s ON s.destination = w.destination
         ORDER BY 2 DESC, 1 LIMIT $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let last: Option<&[u8]> = row.try_get("last")?;
        Ok(Waiting {
            destination: row.try_get("destination")?,
            waiting: row.try_get::<i64, _>("waiting")? as u64,
            oldest: row.try_get("oldest")?,
            suspended: row.try_get("suspended")?,
            last: last.and_then(|last| Event::decode(last).ok()),
        })
    };
    rows.iter().map(read).collect()
}

/// Messages that are held, and that were set aside.
pub(crate) async fn marked(pool: &PgPool) -> sqlx::Result<(u64, u64)> {
    let (held, poison): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE held), count(*) FILTER (WHERE poison) FROM spool.message
         WHERE held OR poison",
    )
    .fetch_one(pool)
    .await?;
    Ok((held as u64, poison as u64))
}
