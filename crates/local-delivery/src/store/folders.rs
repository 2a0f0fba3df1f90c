//! Folders.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::change::Change;
use crate::error::Failure;
use crate::folder_name::FolderName;

/// The use of the folder where deleted messages go (RFC 6154 §2).
pub(crate) const TRASH: &str = "\\Trash";

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
         INSERT INTO mailbox.folder (account_id, folder_id, name, special_use, uid_validity)
         SELECT $1, id, $2,
                (SELECT $3 WHERE NOT EXISTS (SELECT FROM mailbox.folder WHERE account_id = $1 AND special_use = $3)),
                validity
         FROM next
         RETURNING folder_id, name, special_use, uid_validity, uid_next, highest_modseq, messages, unseen, size",
    )
    .bind(account)
    .bind(name)
    // A Trash that is made again is the mailbox's Trash again.
    .bind(FolderName::special_use(name))
    .fetch_one(connection)
    .await
}

/// The folder of this name.
pub(crate) async fn find(change: &mut Change, name: &FolderName) -> Result<FolderRow, Failure> {
    let account = change.account();
    let row = sqlx::query_as(
        "SELECT folder_id, name, special_use, uid_validity, uid_next, highest_modseq, messages, unseen, size
         FROM mailbox.folder WHERE account_id = $1 AND name = $2",
    )
    .bind(account)
    .bind(name.as_str())
    .fetch_optional(change.connection())
    .await?;
    row.ok_or(Failure::NoFolder)
}

/// The folder that is the mailbox's Trash, if it has one.
pub(crate) async fn trash(change: &mut Change) -> sqlx::Result<Option<FolderRow>> {
    let account = change.account();
    sqlx::query_as(
        "SELECT folder_id, name, special_use, uid_validity, uid_next, highest_modseq, messages, unseen, size
         FROM mailbox.folder WHERE account_id = $1 AND special_use = $2 ORDER BY folder_id LIMIT 1",
    )
    .bind(account)
    .bind(TRASH)
    .fetch_optional(change.connection())
    .await
}

/// Makes a folder, unless the mailbox has `limit` already.
pub(crate) async fn create(change: &mut Change, name: &FolderName, limit: u32) -> Result<FolderRow, Failure> {
    let account = change.account();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM mailbox.folder WHERE account_id = $1")
        .bind(account)
        .fetch_one(change.connection())
        .await?;
    if count >= i64::from(limit) {
        return Err(Failure::TooManyFolders);
    }
    insert(change.connection(), account, name.as_str()).await.map_err(taken)
}

/// Renames a folder and those below it.
pub(crate) async fn rename(
    change: &mut Change,
    from: &FolderName,
    to: &FolderName,
) -> Result<FolderRow, Failure> {
    let account = change.account();
    let below = sqlx::query(
        "UPDATE mailbox.folder SET name = $3 || substr(name, length($2) + 1)
         WHERE account_id = $1 AND (name = $2 OR starts_with(name, $2 || '/'))",
    )
    .bind(account)
    .bind(from.as_str())
    .bind(to.as_str())
    .execute(change.connection())
    .await
    .map_err(taken)?;
    if below.rows_affected() == 0 {
        return Err(Failure::NoFolder);
    }
    find(change, to).await
}

/// Removes a folder that holds no messages any more; what went from it before keeps its name.
pub(crate) async fn remove(change: &mut Change, folder: &FolderRow) -> sqlx::Result<()> {
    let account = change.account();
    sqlx::query(
        "WITH gone AS (DELETE FROM mailbox.folder WHERE account_id = $1 AND folder_id = $2)
         UPDATE mailbox.expunged SET folder_name = $3 WHERE account_id = $1 AND folder_id = $2",
    )
    .bind(account)
    .bind(folder.folder_id)
    .bind(&folder.name)
    .execute(change.connection())
    .await?;
    Ok(())
}

/// What a change adds to a folder, or takes from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) messages: i64,
    pub(crate) unseen: i64,
    pub(crate) bytes: i64,
    /// UIDs that were given out.
    pub(crate) uids: i64,
}

/// Counts a change of a folder, after its messages have got their mod-sequences.
pub(crate) async fn count(change: &mut Change, folder_id: i32, added: Added) -> sqlx::Result<()> {
    change.count(added.messages, added.bytes);
    let (account, modseq) = (change.account(), change.modseq());
    sqlx::query(
        "UPDATE mailbox.folder SET messages = messages + $3, unseen = unseen + $4, size = size + $5,
                uid_next = uid_next + $6, highest_modseq = $7
         WHERE account_id = $1 AND folder_id = $2",
    )
    .bind(account)
    .bind(folder_id)
    .bind(added.messages)
    .bind(added.unseen)
    .bind(added.bytes)
    .bind(added.uids)
    .bind(modseq)
    .execute(change.connection())
    .await?;
    Ok(())
}

fn taken(error: sqlx::Error) -> Failure {
    match &error {
        sqlx::Error::Database(reason) if reason.is_unique_violation() => Failure::FolderExists,
        _ => Failure::Store(error),
    }
}
