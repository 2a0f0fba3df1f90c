//! What has changed in a mailbox since a mod-sequence.

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::messages::MessageRow;

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    /// A message came, or its flags changed.
    Message(MessageRow),
    /// A message went.
    Expunged { folder: String, uid: i64, modseq: i64 },
}

impl Change {
    pub(crate) fn modseq(&self) -> i64 {
        match self {
            Self::Message(row) => row.modseq,
            Self::Expunged { modseq, .. } => *modseq,
        }
    }
}

/// Where a mailbox stands.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(crate) struct Standing {
    pub(crate) highest_modseq: i64,
    /// Expunges up to here are no longer known one by one.
    pub(crate) forgotten_modseq: i64,
}

pub(crate) async fn standing(pool: &PgPool, account: Uuid) -> sqlx::Result<Option<Standing>> {
    sqlx::query_as("SELECT highest_modseq, forgotten_modseq FROM mailbox.account WHERE account_id = $1")
        .bind(account)
        .fetch_optional(pool)
        .await
}

/// A row of either kind: the columns of a message are all there, or none.
#[derive(sqlx::FromRow)]
struct ChangeRow {
    modseq: i64,
    folder_id: i32,
    folder: Option<String>,
    uid: i64,
    content_id: Option<Uuid>,
    size: Option<i64>,
    flags: Option<i32>,
    keywords: Option<Vec<String>>,
    received_at: Option<OffsetDateTime>,
    message_id: Option<Uuid>,
    return_path: Option<String>,
    delivered_to: Option<String>,
}

/// At most `limit` changes behind `after`, in their order; of one folder, or of all. A message that changed more than
/// once appears as it is now.
pub(crate) async fn since(
    connection: &mut PgConnection,
    account: Uuid,
    folder: Option<&str>,
    after: i64,
    limit: u32,
) -> sqlx::Result<Vec<Change>> {
    let rows: Vec<ChangeRow> = sqlx::query_as(
        "(SELECT m.modseq, m.folder_id, f.name AS folder, m.uid, m.content_id, m.size, m.flags, m.keywords,
                 m.received_at, m.message_id, m.return_path, m.delivered_to
          FROM mailbox.message m
          JOIN mailbox.folder f ON f.account_id = m.account_id AND f.folder_id = m.folder_id
          WHERE m.account_id = $1 AND m.modseq > $2 AND ($3::text IS NULL OR f.name = $3)
          ORDER BY m.modseq LIMIT $4)
         UNION ALL
         (SELECT e.modseq, e.folder_id, coalesce(f.name, e.folder_name), e.uid, NULL, NULL, NULL, NULL, NULL, NULL,
                 NULL, NULL
          FROM mailbox.expunged e
          LEFT JOIN mailbox.folder f ON f.account_id = e.account_id AND f.folder_id = e.folder_id
          WHERE e.account_id = $1 AND e.modseq > $2 AND ($3 IS NULL OR coalesce(f.name, e.folder_name) = $3)
          ORDER BY e.modseq LIMIT $4)
         ORDER BY 1 LIMIT $4",
    )
    .bind(account)
    .bind(after)
    .bind(folder)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(change).collect())
}

fn change(row: ChangeRow) -> Change {
    let folder = row.folder.unwrap_or_default();
    let (Some(content_id), Some(size), Some(flags), Some(keywords), Some(received_at)) =
        (row.content_id, row.size, row.flags, row.keywords, row.received_at)
    else {
        return Change::Expunged { folder, uid: row.uid, modseq: row.modseq };
    };
    Change::Message(MessageRow {
        folder_id: row.folder_id,
        folder,
        uid: row.uid,
        content_id,
        size,
        flags,
        keywords,
        modseq: row.modseq,
        received_at,
        message_id: row.message_id,
        return_path: row.return_path,
        delivered_to: row.delivered_to,
    })
}
