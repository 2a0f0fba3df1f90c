//! What the collector asks and removes.

use std::collections::HashSet;
use std::time::Duration;

use posthorn_mail::MessageId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::lock::begin_locked;

/// Those of these contents that some mailbox refers to.
pub(crate) async fn referred(
    connection: &mut PgConnection,
    contents: &[MessageId],
) -> sqlx::Result<HashSet<MessageId>> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM UNNEST($1::uuid[]) AS released (id)
         WHERE EXISTS (SELECT FROM mailbox.message WHERE content_id = id)",
    )
    .bind(contents.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(Into::into).collect())
}

/// Forgets at most `limit` deliveries older than `age`; returns how many. Only messages as old come into question, and
/// their ids stand at the beginning of the key.
pub(crate) async fn forget_deliveries(pool: &PgPool, age: Duration, limit: i64) -> sqlx::Result<u64> {
    let forgotten = sqlx::query(
        "DELETE FROM mailbox.delivery WHERE (message_id, account_id, recipient) IN (
             SELECT message_id, account_id, recipient FROM mailbox.delivery
             WHERE message_id < $1 AND delivered_at < now() - make_interval(secs => $2)
             ORDER BY message_id LIMIT $3 FOR UPDATE SKIP LOCKED)",
    )
    .bind(first_id(age))
    .bind(age.as_secs_f64())
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(forgotten.rows_affected())
}

/// Forgets the expunges older than `age` of the mailboxes that the first `limit` of them are of; returns how many.
pub(crate) async fn forget_expunges(pool: &PgPool, age: Duration, limit: i64) -> sqlx::Result<u64> {
    let accounts: Vec<Uuid> = sqlx::query_scalar(
        "SELECT DISTINCT account_id FROM (
             SELECT account_id FROM mailbox.expunged
             WHERE expunged_at < now() - make_interval(secs => $1) LIMIT $2) AS old",
    )
    .bind(age.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    if accounts.is_empty() {
        return Ok(0);
    }
    let (mut transaction, _) = begin_locked(pool, &accounts).await?;
    // The account's row remembers up to where expunges are forgotten, so that watchers who come back are told.
    let forgotten: i64 = sqlx::query_scalar(
        "WITH gone AS (
             DELETE FROM mailbox.expunged
             WHERE account_id = ANY($1) AND expunged_at < now() - make_interval(secs => $2)
             RETURNING account_id, modseq),
         told AS (
             UPDATE mailbox.account a SET forgotten_modseq = greatest(forgotten_modseq, g.modseq)
             FROM (SELECT account_id, max(modseq) AS modseq FROM gone GROUP BY account_id) g
             WHERE a.account_id = g.account_id)
         SELECT count(*) FROM gone",
    )
    .bind(&accounts)
    .bind(age.as_secs_f64())
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(forgotten as u64)
}

/// The first id that a message may have had `age` ago (RFC 9562 §5.7: a UUIDv7 begins with its milliseconds).
fn first_id(age: Duration) -> Uuid {
    let since_1970 = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(age);
    Uuid::from_u128(since_1970.as_millis() << 80)
}
