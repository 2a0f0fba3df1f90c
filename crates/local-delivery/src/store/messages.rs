//! Reading messages.

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::change::Change;
use super::folders::{Added, FolderRow};
use crate::flags::{DELETED, SEEN};

/// A message in a folder, as the store knows it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct MessageRow {
    pub(crate) folder_id: i32,
    /// The folder's name.
    pub(crate) folder: String,
    pub(crate) uid: i64,
    pub(crate) content_id: Uuid,
    pub(crate) size: i64,
    pub(crate) flags: i32,
    pub(crate) keywords: Vec<String>,
    pub(crate) modseq: i64,
    pub(crate) received_at: OffsetDateTime,
    pub(crate) message_id: Option<Uuid>,
    pub(crate) return_path: Option<String>,
    pub(crate) delivered_to: Option<String>,
}

/// Where a page begins: behind this folder and UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct After {
    pub(crate) folder_id: i32,
    pub(crate) uid: i64,
}

/// At most `limit` messages of `folder`, or of all folders, by folder and UID, behind `after`.
pub(crate) async fn page(
    pool: &PgPool,
    account: Uuid,
    folder: Option<&str>,
    after: After,
    limit: u32,
) -> sqlx::Result<Vec<MessageRow>> {
    sqlx::query_as(
        "SELECT m.folder_id, f.name AS folder, uid, content_id, m.size, flags, keywords, modseq, received_at,
                message_id, return_path, delivered_to
         FROM mailbox.message m JOIN mailbox.folder f ON f.account_id = m.account_id AND f.folder_id = m.folder_id
         WHERE m.account_id = $1 AND ($2::text IS NULL OR f.name = $2) AND (m.folder_id, uid) > ($3, $4)
         ORDER BY m.folder_id, uid LIMIT $5",
    )
    .bind(account)
    .bind(folder)
    .bind(after.folder_id)
    .bind(after.uid)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
}

/// One message.
pub(crate) async fn one(
    pool: &PgPool,
    account: Uuid,
    folder: &str,
    uid: i64,
) -> sqlx::Result<Option<MessageRow>> {
    sqlx::query_as(
        "SELECT m.folder_id, f.name AS folder, uid, content_id, m.size, flags, keywords, modseq, received_at,
                message_id, return_path, delivered_to
         FROM mailbox.folder f JOIN mailbox.message m ON f.account_id = m.account_id AND f.folder_id = m.folder_id
         WHERE f.account_id = $1 AND f.name = $2 AND uid = $3 AND m.account_id = $1",
    )
    .bind(account)
    .bind(folder)
    .bind(uid)
    .fetch_optional(pool)
    .await
}

/// Which messages of a folder are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    /// Those with these UIDs.
    Uids(&'a [i64]),
    /// Those that are flagged `\Deleted`.
    Deleted,
    All,
}

/// Those messages of `folder` that are meant and are there, by UID; at most `limit`.
pub(crate) async fn select(
    change: &mut Change,
    folder: &FolderRow,
    which: Which<'_>,
    limit: u32,
) -> sqlx::Result<Vec<MessageRow>> {
    let account = change.account();
    let (uids, bits) = match which {
        Which::Uids(uids) => (Some(uids), 0),
        Which::Deleted => (None, DELETED),
        Which::All => (None, 0),
    };
    sqlx::query_as(
        "SELECT folder_id, $3 AS folder, uid, content_id, size, flags, keywords, modseq, received_at, message_id,
                return_path, delivered_to
         FROM mailbox.message
         WHERE account_id = $1 AND folder_id = $2 AND ($4::bigint[] IS NULL OR uid = ANY($4)) AND flags & $5 = $5
         ORDER BY uid LIMIT $6",
    )
    .bind(account)
    .bind(folder.folder_id)
    .bind(&folder.name)
    .bind(uids)
    .bind(bits)
    .bind(i64::from(limit))
    .fetch_all(change.connection())
    .await
}

/// What these messages count for in their folder.
pub(crate) fn sum(rows: &[MessageRow]) -> Added {
    Added {
        messages: rows.len() as i64,
        unseen: rows.iter().filter(|row| row.flags & SEEN == 0).count() as i64,
        bytes: rows.iter().map(|row| row.size).sum(),
        uids: 0,
    }
}
