//! Folders.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// A folder as it stands.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct FolderRow {
    pub(crate) folder_id: i32,
    pub(crate) name: String,
    pub(crate) special_use: Option<String>,
    pub(crate) uid_validity: i64,
    pub(crate) uid_next: i64,
    pub(crate) highest_modseq: i64,
    pub(crate) messages: i64,
    pub(crate) unseen: i64,
    pub(crate) size: i64,
}

/// All folders, INBOX first, the others by name; none for a mailbox that has not been made yet.
pub(crate) async fn list(pool: &PgPool, account: Uuid) -> sqlx::Result<Vec<FolderRow>> {
    sqlx::query_as(
        "SELECT folder_id, name, special_use, uid_validity, uid_next, highest_modseq, messages, unseen, size
         FROM mailbox.folder WHERE account_id = $1 ORDER BY name <> 'INBOX', name",
    )
    .bind(account)
    .fetch_all(pool)
    .await
}

/// Adds a folder; the caller holds the mailbox's lock and knows that the name is free.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    account: Uuid,
    name: &str,
) -> sqlx::Result<FolderRow> {
    sqlx::query_as(
        "WITH next AS (
             UPDATE mailbox.account SET next_folder_id = next_folder_id + 1,
                    last_uid_validity = greatest(last_uid_validity + 1, extract(epoch FROM now())::bigint)
             WHERE account_id = $1 RETURNING next_folder_id - 1 AS id, last_uid_validity AS validity)
         INSERT INTO mailbox.folder (account_id, folder_id, name, uid_validity)
         SELECT $1, id, $2, validity FROM next
         RETURNING folder_id, name, special_use, uid_validity, uid_next, highest_modseq, messages, unseen, size",
    )
    .bind(account)
    .bind(name)
    .fetch_one(connection)
    .await
}
