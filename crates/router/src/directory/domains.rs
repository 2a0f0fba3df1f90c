//! `directory.domains`

use sqlx::PgPool;
use time::OffsetDateTime;

use super::{Error, one_row, or_precondition};

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) tenant_id: String,
    pub(crate) catch_all: Option<String>,
    pub(crate) separator: Option<String>,
    pub(crate) created_at: OffsetDateTime,
}

/// What a domain is to be.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) name: &'a str,
    pub(crate) tenant_id: &'a str,
    pub(crate) catch_all: Option<&'a str>,
    pub(crate) separator: Option<&'a str>,
}

pub(crate) async fn insert(pool: &PgPool, new: &New<'_>) -> Result<Row, Error> {
    sqlx::query_as(
        "INSERT INTO directory.domains (name, tenant_id, catch_all, separator) VALUES ($1, $2, $3, $4)
         RETURNING name, tenant_id, catch_all, separator, created_at",
    )
    .bind(new.name)
    .bind(new.tenant_id)
    .bind(new.catch_all)
    .bind(new.separator)
    .fetch_one(pool)
    .await
    .map_err(or_precondition("there is no such tenant"))
}

pub(crate) async fn get(pool: &PgPool, name: &str) -> Result<Row, Error> {
    let row = sqlx::query_as(
        "SELECT name, tenant_id, catch_all, separator, created_at FROM directory.domains WHERE name = $1",
    );
    Ok(row.bind(name).fetch_one(pool).await?)
}

/// Changes all but the name and the tenant.
pub(crate) async fn update(
    pool: &PgPool,
    name: &str,
    catch_all: Option<&str>,
    separator: Option<&str>,
) -> Result<Row, Error> {
    let row = sqlx::query_as(
        "UPDATE directory.domains SET catch_all = $2, separator = $3 WHERE name = $1
         RETURNING name, tenant_id, catch_all, separator, created_at",
    );
    Ok(row.bind(name).bind(catch_all).bind(separator).fetch_one(pool).await?)
}

/// Those after `after`, by name.
pub(crate) async fn list(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query_as(
        "SELECT name, tenant_id, catch_all, separator, created_at FROM directory.domains
         WHERE name > $1 ORDER BY name LIMIT $2",
    );
    Ok(rows.bind(after).bind(limit).fetch_all(pool).await?)
}

pub(crate) async fn delete(pool: &PgPool, name: &str) -> Result<(), Error> {
    let done = sqlx::query("DELETE FROM directory.domains WHERE name = $1")
        .bind(name)
        .execute(pool)
        .await
        .map_err(or_precondition("the domain still has accounts, aliases or lists"))?;
    one_row(&done)
}
