//! `directory.lists` and `directory.list_members`

use sqlx::{PgConnection, PgExecutor, PgPool};

use super::{Error, one_row, or_precondition};
use crate::known::MailboxName;

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) domain: String,
    pub(crate) local: String,
    pub(crate) owner: Option<String>,
}

pub(crate) async fn insert(
    connection: &mut PgConnection,
    name: &MailboxName,
    owner: Option<&str>,
) -> Result<(), Error> {
    sqlx::query(
        "WITH address AS (INSERT INTO directory.addresses (domain, local, kind) VALUES ($1, $2, 'list'))
         INSERT INTO directory.lists (domain, local, owner) VALUES ($1, $2, $3)",
    )
    .bind(name.domain.as_str())
    .bind(&*name.local)
    .bind(owner)
    .execute(connection)
    .await
    .map_err(or_precondition("the domain is not in the directory"))?;
    Ok(())
}

/// Locks a list until the end of the transaction, so that its members can be counted.
pub(crate) async fn lock(connection: &mut PgConnection, name: &MailboxName) -> Result<Row, Error> {
    let row = sqlx::query_as(
        "SELECT domain, local, owner FROM directory.lists WHERE domain = $1 AND local = $2 FOR UPDATE",
    );
    Ok(row.bind(name.domain.as_str()).bind(&*name.local).fetch_one(connection).await?)
}

pub(crate) async fn get(pool: &PgPool, name: &MailboxName) -> Result<Row, Error> {
    let row =
        sqlx::query_as("SELECT domain, local, owner FROM directory.lists WHERE domain = $1 AND local = $2");
    Ok(row.bind(name.domain.as_str()).bind(&*name.local).fetch_one(pool).await?)
}

pub(crate) async fn set_owner(
    connection: &mut PgConnection,
    name: &MailboxName,
    owner: Option<&str>,
) -> Result<(), Error> {
    let done = sqlx::query("UPDATE directory.lists SET owner = $3 WHERE domain = $1 AND local = $2");
    one_row(&done.bind(name.domain.as_str()).bind(&*name.local).bind(owner).execute(connection).await?)
}

/// Adds members; those it has already are passed over.
pub(crate) async fn add_members(
    connection: &mut PgConnection,
    name: &MailboxName,
    members: &[String],
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO directory.list_members (domain, local, member)
         SELECT $1, $2, member FROM UNNEST($3::text[]) AS member ON CONFLICT DO NOTHING",
    )
    .bind(name.domain.as_str())
    .bind(&*name.local)
    .bind(members)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes members; those it does not have are passed over.
pub(crate) async fn remove_members(
    connection: &mut PgConnection,
    name: &MailboxName,
    members: &[String],
) -> Result<(), Error> {
    sqlx::query(
        "DELETE FROM directory.list_members WHERE domain = $1 AND local = $2 AND member = ANY($3::text[])",
    )
    .bind(name.domain.as_str())
    .bind(&*name.local)
    .bind(members)
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) async fn count_members(connection: &mut PgConnection, name: &MailboxName) -> Result<usize, Error> {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM directory.list_members WHERE domain = $1 AND local = $2")
            .bind(name.domain.as_str())
            .bind(&*name.local)
            .fetch_one(connection)
            .await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

pub(crate) async fn members(executor: impl PgExecutor<'_>, name: &MailboxName) -> Result<Vec<String>, Error> {
    let members = sqlx::query_scalar(
        "SELECT member FROM directory.list_members WHERE domain = $1 AND local = $2 ORDER BY member",
    );
    Ok(members.bind(name.domain.as_str()).bind(&*name.local).fetch_all(executor).await?)
}

/// Those after `after` (domain and local part), of one domain or, when it is empty, of all; without their members.
pub(crate) async fn list(
    pool: &PgPool,
    domain: &str,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query_as(
        "SELECT domain, local, owner FROM directory.lists
         WHERE ($1 = '' OR domain = $1) AND (domain, local) > ($2, $3) ORDER BY domain, local LIMIT $4",
    );
    Ok(rows.bind(domain).bind(after.0).bind(after.1).bind(limit).fetch_all(pool).await?)
}

pub(crate) async fn delete(pool: &PgPool, name: &MailboxName) -> Result<(), Error> {
    let done =
        sqlx::query("DELETE FROM directory.addresses WHERE domain = $1 AND local = $2 AND kind = 'list'");
    one_row(&done.bind(name.domain.as_str()).bind(&*name.local).execute(pool).await?)
}
