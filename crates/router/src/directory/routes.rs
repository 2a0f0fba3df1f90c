//! `directory.routes`

use sqlx::PgPool;
use sqlx::types::Json;

use super::Error;
use super::one_row;
use crate::known::{RouteHost, StaticRoute};

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) pattern: String,
    pub(crate) hosts: Json<Vec<RouteHost>>,
}

impl From<Row> for StaticRoute {
    fn from(row: Row) -> Self {
        Self { pattern: row.pattern, hosts: row.hosts.0 }
    }
}

pub(crate) async fn insert(pool: &PgPool, route: &StaticRoute) -> Result<(), Error> {
    sqlx::query("INSERT INTO directory.routes (pattern, hosts) VALUES ($1, $2)")
        .bind(&route.pattern)
        .bind(Json(&route.hosts))
        .execute(pool)
        .await?;
    Ok(())
}

/// Those after `after`, by pattern.
pub(crate) async fn list(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<StaticRoute>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT pattern, hosts FROM directory.routes WHERE pattern > $1 ORDER BY pattern LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

pub(crate) async fn delete(pool: &PgPool, pattern: &str) -> Result<(), Error> {
    let done =
        sqlx::query("DELETE FROM directory.routes WHERE pattern = $1").bind(pattern).execute(pool).await?;
    one_row(&done)
}
