//! Reading messages.

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

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
