//! `directory.aliases`

use sqlx::PgPool;

use super::{Error, one_row, or_precondition};
use crate::known::MailboxName;

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) domain: String,
    pub(crate) local: String,
    pub(crate) targets: Vec<String>,
}

pub(crate) async fn insert(pool: &PgPool, name: &MailboxName, targets: &[String]) -> Result<(), Error> {
    sqlx::query(
        "WITH address AS (INSERT INTO directory.addresses (domain, local, kind) VALUES ($1, $2, 'alias'))
         INSERT INTO directory.aliases (domain, local, targets) VALUES ($1, $2, $3)",
    )
    .bind(name.domain.as_str())
    .bind(&*name.local)
    .bind(targets)
    .execute(pool)
    .await
    .map_err(or_precondition("the domain is not in the directory"))?;
    Ok(())
}

/// Those after `after` (domain and local part), of one domain or, when it is empty, of all.
pub(crate) async fn list(
    pool: &PgPool,
    domain: &str,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query_as(
        "SELECT domain, local, targets FROM directory.aliases
         WHERE ($1 = '' OR domain = $1) AND (domain, local) > ($2, $3) ORDER BY domain, local LIMIT $4",
    );
    Ok(rows.bind(domain).bind(after.0).bind(after.1).bind(limit).fetch_all(pool).await?)
}

pub(crate) async fn delete(pool: &PgPool, name: &MailboxName) -> Result<(), Error> {
    let done =
        sqlx::query("DELETE FROM directory.addresses WHERE domain = $1 AND local = $2 AND kind = 'alias'");
    one_row(&done.bind(name.domain.as_str()).bind(&*name.local).execute(pool).await?)
}
