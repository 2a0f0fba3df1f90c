//! `directory.tenants`

use sqlx::PgPool;

use super::{Error, one_row, or_precondition};

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) tenant_id: String,
    pub(crate) display_name: String,
}

pub(crate) async fn insert(pool: &PgPool, tenant_id: &str, display_name: &str) -> Result<(), Error> {
    sqlx::query("INSERT INTO directory.tenants (tenant_id, display_name) VALUES ($1, $2)")
        .bind(tenant_id)
        .bind(display_name)
        .execute(pool)
        .await?;
    Ok(())
}

/// Those after `after`, by id.
pub(crate) async fn list(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query_as(
        "SELECT tenant_id, display_name FROM directory.tenants WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2",
    );
    Ok(rows.bind(after).bind(limit).fetch_all(pool).await?)
}

pub(crate) async fn delete(pool: &PgPool, tenant_id: &str) -> Result<(), Error> {
    let done = sqlx::query("DELETE FROM directory.tenants WHERE tenant_id = $1")
        .bind(tenant_id)
        .execute(pool)
        .await
        .map_err(or_precondition("the tenant still has domains or keys"))?;
    one_row(&done)
}
