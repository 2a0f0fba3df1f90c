//! `directory.keys`

use sqlx::PgPool;
use time::OffsetDateTime;

use super::{Error, one_row, or_precondition};

#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) key_id: String,
    pub(crate) tenant_id: String,
    pub(crate) description: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: Option<OffsetDateTime>,
}

/// What a key is to be.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) key_id: &'a str,
    pub(crate) tenant_id: &'a str,
    pub(crate) description: &'a str,
    pub(crate) scopes: &'a [String],
    pub(crate) expires_at: Option<OffsetDateTime>,
}

pub(crate) async fn insert(pool: &PgPool, new: &New<'_>, secret_hash: &[u8]) -> Result<Row, Error> {
    sqlx::query_as(
        "INSERT INTO directory.keys (key_id, tenant_id, description, scopes, expires_at, secret_hash)
         VALUES ($1, $2, $3, $4, $5, $6)
         RETURNING key_id, tenant_id, description, scopes, created_at, expires_at",
    )
    .bind(new.key_id)
    .bind(new.tenant_id)
    .bind(new.description)
    .bind(new.scopes)
    .bind(new.expires_at)
    .bind(secret_hash)
    .fetch_one(pool)
    .await
    .map_err(or_precondition("there is no such tenant"))
}

/// The key with this secret, expired or not.
pub(crate) async fn by_secret(pool: &PgPool, secret_hash: &[u8]) -> Result<Option<Row>, Error> {
    let row = sqlx::query_as(
        "SELECT key_id, tenant_id, description, scopes, created_at, expires_at FROM directory.keys
         WHERE secret_hash = $1",
    );
    Ok(row.bind(secret_hash).fetch_optional(pool).await?)
}

/// Those after `after`, by id.
pub(crate) async fn list(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query_as(
        "SELECT key_id, tenant_id, description, scopes, created_at, expires_at FROM directory.keys
         WHERE key_id > $1 ORDER BY key_id LIMIT $2",
    );
    Ok(rows.bind(after).bind(limit).fetch_all(pool).await?)
}

pub(crate) async fn delete(pool: &PgPool, key_id: &str) -> Result<(), Error> {
    let done = sqlx::query("DELETE FROM directory.keys WHERE key_id = $1").bind(key_id).execute(pool).await?;
    one_row(&done)
}
