//! `directory.accounts`

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, one_row, or_precondition};
use crate::known::MailboxName;

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) account_id: Uuid,
    pub(crate) domain: String,
    pub(crate) local: String,
    pub(crate) display_name: String,
    pub(crate) quota_bytes: i64,
    pub(crate) disabled: bool,
    pub(crate) created_at: OffsetDateTime,
}

/// What an account is to be, beside its address and password.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    pub(crate) display_name: &'a str,
    pub(crate) quota_bytes: i64,
    pub(crate) disabled: bool,
}

/// What is to happen to an account's password.
#[derive(Debug)]
pub(crate) enum Password {
    Unchanged,
    Removed,
    /// The Argon2id hash in PHC form.
    Hash(String),
}

pub(crate) async fn insert(
    pool: &PgPool,
    account_id: Uuid,
    name: &MailboxName,
    settings: &Settings<'_>,
    password_hash: Option<&str>,
) -> Result<Row, Error> {
    sqlx::query_as(
        "WITH address AS (INSERT INTO directory.addresses (domain, local, kind) VALUES ($2, $3, 'account'))
         INSERT INTO directory.accounts
             (account_id, domain, local, display_name, quota_bytes, disabled, password_hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         RETURNING account_id, domain, local, display_name, quota_bytes, disabled, created_at",
    )
    .bind(account_id)
    .bind(name.domain.as_str())
    .bind(&*name.local)
    .bind(settings.display_name)
    .bind(settings.quota_bytes)
    .bind(settings.disabled)
    .bind(password_hash)
    .fetch_one(pool)
    .await
    .map_err(or_precondition("the domain is not in the directory"))
}

pub(crate) async fn get(pool: &PgPool, name: &MailboxName) -> Result<Row, Error> {
    let row = sqlx::query_as(
        "SELECT account_id, domain, local, display_name, quota_bytes, disabled, created_at
         FROM directory.accounts WHERE domain = $1 AND local = $2",
    );
    Ok(row.bind(name.domain.as_str()).bind(&*name.local).fetch_one(pool).await?)
}

/// Changes all but the address and the id.
pub(crate) async fn update(
    pool: &PgPool,
    name: &MailboxName,
    settings: &Settings<'_>,
    password: &Password,
) -> Result<Row, Error> {
    let (keep, hash) = match password {
        Password::Unchanged => (true, None),
        Password::Removed => (false, None),
        Password::Hash(hash) => (false, Some(hash.as_str())),
    };
    let row = sqlx::query_as(
        "UPDATE directory.accounts SET display_name = $3, quota_bytes = $4, disabled = $5,
             password_hash = CASE WHEN $6 THEN password_hash ELSE $7 END
         WHERE domain = $1 AND local = $2
         RETURNING account_id, domain, local, display_name, quota_bytes, disabled, created_at",
    );
    let row = row
        .bind(name.domain.as_str())
        .bind(&*name.local)
        .bind(settings.display_name)
        .bind(settings.quota_bytes)
        .bind(settings.disabled)
        .bind(keep)
        .bind(hash);
    Ok(row.fetch_one(pool).await?)
}

/// Those after `after` (domain and local part), of one domain or, when it is empty, of all.
pub(crate) async fn list(
    pool: &PgPool,
    domain: &str,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query_as(
        "SELECT account_id, domain, local, display_name, quota_bytes, disabled, created_at
         FROM directory.accounts
         WHERE ($1 = '' OR domain = $1) AND (domain, local) > ($2, $3) ORDER BY domain, local LIMIT $4",
    );
    Ok(rows.bind(domain).bind(after.0).bind(after.1).bind(limit).fetch_all(pool).await?)
}

pub(crate) async fn delete(pool: &PgPool, name: &MailboxName) -> Result<(), Error> {
    let done =
        sqlx::query("DELETE FROM directory.addresses WHERE domain = $1 AND local = $2 AND kind = 'account'");
    one_row(&done.bind(name.domain.as_str()).bind(&*name.local).execute(pool).await?)
}
