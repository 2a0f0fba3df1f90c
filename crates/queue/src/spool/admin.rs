//! What operators see and do.

use sqlx::PgPool;

/// Messages in the spool, and their bytes.
pub(crate) async fn size(pool: &PgPool) -> sqlx::Result<(u64, u64)> {
    let (messages, bytes): (i64, i64) =
        sqlx::query_as("SELECT count(*), coalesce(sum(size), 0)::bigint FROM spool.message")
            .fetch_one(pool)
            .await?;
    Ok((messages as u64, bytes as u64))
}
