//! Mailboxes whose accounts are gone.

use std::time::Duration;

use posthorn_mail::MessageId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// At most `limit` mailboxes after `after`, in the order of their ids.
pub(crate) async fn mailboxes(pool: &PgPool, after: Uuid, limit: u32) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "SELECT account_id FROM mailbox.account WHERE account_id > $1 ORDER BY account_id LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
}

/// Writes down that the directory knows these accounts; returns of how many it is news.
pub(crate) async fn note_there(pool: &PgPool, accounts: &[Uuid]) -> sqlx::Result<u64> {
    // Locked in the order of the ids, as everywhere.
    let done = sqlx::query(
        "UPDATE mailbox.account a SET gone_since = NULL
         FROM (SELECT account_id FROM mailbox.account WHERE account_id = ANY($1) AND gone_since IS NOT NULL
               ORDER BY account_id FOR NO KEY UPDATE) AS back
         WHERE a.account_id = back.account_id",
    );
    Ok(done.bind(accounts).execute(pool).await?.rows_affected())
}

/// Writes down that the directory does not know these accounts, from now on if it is news; returns of how many it is.
pub(crate) async fn note_gone(pool: &PgPool, accounts: &[Uuid]) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "UPDATE mailbox.account a SET gone_since = now()
         FROM (SELECT account_id FROM mailbox.account WHERE account_id = ANY($1) AND gone_since IS NULL
               ORDER BY account_id FOR NO KEY UPDATE) AS gone
         WHERE a.account_id = gone.account_id",
    );
    Ok(done.bind(accounts).execute(pool).await?.rows_affected())
}

/// Those of these accounts that have been gone for `grace`.
pub(crate) async fn gone_for(pool: &PgPool, accounts: &[Uuid], grace: Duration) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "SELECT account_id FROM mailbox.account
         WHERE account_id = ANY($1) AND gone_since <= now() - make_interval(secs => $2) ORDER BY account_id",
    )
    .bind(accounts)
    .bind(grace.as_secs_f64())
    .fetch_all(pool)
    .await
}

/// What became of a mailbox in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// There is more of it.
    Some,
    /// There is nothing left of it.
    All,
    /// Nothing was done: somebody else is at it, or its account has come back.
    Left,
}

/// Removes a mailbox that has been gone for `grace`, at most `limit` of its messages at once: the messages, whose contents
/// are left to the collector, then what is remembered of others, at last the mailbox itself. What was delivered to it is
/// forgotten with other deliveries of that age. In between all counts are right, should the account come back.
pub(crate) async fn remove(
    pool: &PgPool,
    account: Uuid,
    grace: Duration,
    limit: u32,
) -> sqlx::Result<Removed> {
    let mut transaction = pool.begin().await?;
    let locked = sqlx::query(
        "SELECT FROM mailbox.account
         WHERE account_id = $1 AND gone_since <= now() - make_interval(secs => $2) FOR UPDATE SKIP LOCKED",
    );
    let locked = locked.bind(account).bind(grace.as_secs_f64()).fetch_optional(&mut *transaction).await?;
    if locked.is_none() {
        return Ok(Removed::Left);
    }
    let contents = remove_messages(&mut transaction, account, limit).await?;
    posthorn_content::release(&mut transaction, &contents).await?;
    let is_empty = contents.len() < limit as usize
        && remove_expunged(&mut transaction, account, limit).await? < u64::from(limit);
    if is_empty {
        // The mailbox last: without its row nobody would look for the rest again.
        for statement in [
            "DELETE FROM mailbox.folder WHERE account_id = $1",
            "DELETE FROM mailbox.account WHERE account_id = $1",
        ] {
            sqlx::query(statement).bind(account).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    Ok(if is_empty { Removed::All } else { Removed::Some })
}

/// Removes at most `limit` messages; returns their contents.
async fn remove_messages(
    connection: &mut PgConnection,
    account: Uuid,
    limit: u32,
) -> sqlx::Result<Vec<MessageId>> {
    let contents: Vec<Uuid> = sqlx::query_scalar(
        "WITH gone AS (
             DELETE FROM mailbox.message WHERE account_id = $1 AND (folder_id, uid) IN (
                 SELECT folder_id, uid FROM mailbox.message WHERE account_id = $1
                 ORDER BY folder_id, uid LIMIT $2)
             RETURNING folder_id, content_id, size, flags),
         counted AS (
             SELECT folder_id, count(*) AS messages, count(*) FILTER (WHERE flags & 1 = 0) AS unseen,
                    sum(size)::bigint AS size
             FROM gone GROUP BY folder_id),
         folders AS (
             UPDATE mailbox.folder f SET messages = f.messages - c.messages, unseen = f.unseen - c.unseen,
                    size = f.size - c.size
             FROM counted c WHERE f.account_id = $1 AND f.folder_id = c.folder_id),
         accounts AS (
             UPDATE mailbox.account SET messages = account.messages - t.messages, used_bytes = used_bytes - t.size
             FROM (SELECT sum(messages)::bigint AS messages, sum(size)::bigint AS size FROM counted) AS t
             WHERE account_id = $1 AND t.messages > 0)
         SELECT content_id FROM gone",
    )
    .bind(account)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    Ok(contents.into_iter().map(Into::into).collect())
}

async fn remove_expunged(connection: &mut PgConnection, account: Uuid, limit: u32) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "DELETE FROM mailbox.expunged WHERE account_id = $1 AND modseq IN (
             SELECT modseq FROM mailbox.expunged WHERE account_id = $1 ORDER BY modseq LIMIT $2)",
    );
    Ok(done.bind(account).bind(i64::from(limit)).execute(connection).await?.rows_affected())
}
