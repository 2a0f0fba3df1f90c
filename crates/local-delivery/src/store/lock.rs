//! Locking mailboxes, and making those that are not there yet.

use std::collections::HashMap;

use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::folder_name::FIRST_FOLDERS;

/// What is counted for a whole mailbox.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(crate) struct Account {
    pub(crate) account_id: Uuid,
    pub(crate) used_bytes: i64,
    pub(crate) highest_modseq: i64,
}

/// Begins a transaction that holds the locks of these mailboxes, made if they are new.
///
/// Locks are taken in the order of the ids, whoever asks, so that no two transactions wait for each other. New
/// mailboxes are made in a transaction of their own before, for the same reason: to make one is to lock it.
pub(crate) async fn begin_locked(
    pool: &PgPool,
    accounts: &[Uuid],
) -> sqlx::Result<(Transaction<'static, Postgres>, HashMap<Uuid, Account>)> {
    loop {
        let mut transaction = pool.begin().await?;
        let locked = lock(&mut transaction, accounts).await?;
        let missing = missing(&locked, accounts);
        if missing.is_empty() {
            return Ok((transaction, locked));
        }
        transaction.rollback().await?;
        create(pool, &missing).await?;
    }
}

/// Those of these mailboxes that there are not.
pub(super) fn missing(locked: &HashMap<Uuid, Account>, accounts: &[Uuid]) -> Vec<Uuid> {
    accounts.iter().copied().filter(|id| !locked.contains_key(id)).collect()
}

/// Locks the mailboxes that there are, in the order of the ids.
pub(super) async fn lock(
    connection: &mut PgConnection,
    accounts: &[Uuid],
) -> sqlx::Result<HashMap<Uuid, Account>> {
    let rows: Vec<Account> = sqlx::query_as(
        "SELECT account_id, used_bytes, highest_modseq FROM mailbox.account
         WHERE account_id = ANY($1) ORDER BY account_id FOR NO KEY UPDATE",
    )
    .bind(accounts)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.account_id, row)).collect())
}

/// Makes mailboxes with their first folders; those that somebody else makes at the same time are waited for.
pub(crate) async fn create(postgres: impl PgExecutor<'_>, accounts: &[Uuid]) -> sqlx::Result<()> {
    let (names, uses): (Vec<&str>, Vec<Option<&str>>) = FIRST_FOLDERS.into_iter().unzip();
    // The folders' UIDVALIDITY differ, so that one may later take the name of another (RFC 3501 §2.3.1.1).
    sqlx::query(
        "WITH fresh AS (
             INSERT INTO mailbox.account (account_id, last_uid_validity, next_folder_id)
             SELECT id, extract(epoch FROM now())::bigint + cardinality($2), cardinality($2) + 1
             FROM (SELECT DISTINCT UNNEST($1::uuid[]) AS id ORDER BY id) AS wanted
             ON CONFLICT (account_id) DO NOTHING
             RETURNING account_id, last_uid_validity - cardinality($2) AS validity)
         INSERT INTO mailbox.folder (account_id, folder_id, name, special_use, uid_validity)
         SELECT account_id, nr, name, special_use, validity + nr
         FROM fresh, UNNEST($2::text[], $3::text[]) WITH ORDINALITY AS first (name, special_use, nr)",
    )
    .bind(accounts)
    .bind(names)
    .bind(uses)
    .execute(postgres)
    .await?;
    Ok(())
}

/// The highest mod-sequences of these mailboxes; those that were never made are left out.
pub(crate) async fn modseqs(pool: &PgPool, accounts: &[Uuid]) -> sqlx::Result<Vec<(Uuid, i64)>> {
    sqlx::query_as("SELECT account_id, highest_modseq FROM mailbox.account WHERE account_id = ANY($1)")
        .bind(accounts)
        .fetch_all(pool)
        .await
}
