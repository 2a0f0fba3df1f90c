//! Letting go of contents.

use std::time::Duration;

use posthorn_mail::MessageId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A content that nobody may refer to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// Which.
    pub id: MessageId,
    /// Since when.
    pub at: OffsetDateTime,
}

/// Writes down that these contents may have lost their last holder. Repeating it is harmless, and begins the grace
/// anew.
pub async fn release(connection: &mut PgConnection, ids: &[MessageId]) -> sqlx::Result<()> {
    // Updating rather than doing nothing takes the row's lock: a collector that looks at the same content now either
    // waits, or has looked before this holder let go. In the order of the ids, so that no two wait for each other.
    sqlx::query(
        "INSERT INTO content.released (content_id) SELECT DISTINCT id FROM UNNEST($1::uuid[]) AS gone (id) ORDER BY id
         ON CONFLICT (content_id) DO UPDATE SET released_at = now()",
    )
    .bind(uuids(ids))
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes a content off the list of the released: it has a holder. `false` when it was not there: an upload that took
/// so long has been collected.
pub async fn unrelease(connection: &mut PgConnection, id: MessageId) -> sqlx::Result<bool> {
    let done = sqlx::query("DELETE FROM content.released WHERE content_id = $1")
        .bind(id.uuid())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Holds a content's place on the list of the released until the transaction ends; `false` when it has none (any more).
pub async fn lock(connection: &mut PgConnection, id: MessageId) -> sqlx::Result<bool> {
    let row = sqlx::query("SELECT FROM content.released WHERE content_id = $1 FOR UPDATE")
        .bind(id.uuid())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Takes contents off the list of the released that turned out to have holders.
pub async fn keep(connection: &mut PgConnection, ids: &[MessageId]) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM content.released WHERE content_id = ANY($1)")
        .bind(uuids(ids))
        .execute(connection)
        .await?;
    Ok(())
}

/// What has been released for at least `grace`, the oldest first, at most `limit`.
pub async fn released_before(
    connection: &mut PgConnection,
    grace: Duration,
    limit: u32,
) -> sqlx::Result<Vec<Released>> {
    let rows: Vec<(Uuid, OffsetDateTime)> = sqlx::query_as(
        "SELECT content_id, released_at FROM content.released
         WHERE released_at <= now() - make_interval(secs => $1) ORDER BY released_at LIMIT $2",
    )
    .bind(grace.as_secs_f64())
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, at)| Released { id: id.into(), at }).collect())
}

/// Locks those of these contents that are still released since `grace` ago, and that no other collector is at: the
/// caller may decide on them until its transaction ends.
pub async fn lock_released(
    connection: &mut PgConnection,
    ids: &[MessageId],
    grace: Duration,
) -> sqlx::Result<Vec<MessageId>> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT content_id FROM content.released
         WHERE content_id = ANY($1) AND released_at <= now() - make_interval(secs => $2)
         FOR UPDATE SKIP LOCKED",
    )
    .bind(uuids(ids))
    .bind(grace.as_secs_f64())
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(Into::into).collect())
}

/// Deletes contents for good, and their place on the list of the released. Unknown ids are no error.
pub async fn delete(connection: &mut PgConnection, ids: &[MessageId]) -> sqlx::Result<()> {
    sqlx::query(
        "WITH gone AS (DELETE FROM content.chunk WHERE content_id = ANY($1))
         DELETE FROM content.released WHERE content_id = ANY($1)",
    )
    .bind(uuids(ids))
    .execute(connection)
    .await?;
    Ok(())
}

fn uuids(ids: &[MessageId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.uuid()).collect()
}
