//! Putting a message into a folder without delivering it.

use posthorn_mail::MessageId;
use time::OffsetDateTime;

use super::change::Change;
use super::folders::{self, Added, FolderRow};
use super::messages::MessageRow;
use crate::flags::{Flags, SEEN};

/// Adds a message to `folder`; its content is in the store, or comes with the same transaction.
pub(crate) async fn append(
    change: &mut Change,
    folder: &FolderRow,
    content: MessageId,
    size: u64,
    flags: &Flags,
    received_at: Option<OffsetDateTime>,
) -> sqlx::Result<MessageRow> {
    let (account, modseq) = (change.account(), change.next_modseq());
    let row = sqlx::query_as(
        "INSERT INTO mailbox.message (account_id, folder_id, uid, content_id, size, flags, keywords, modseq, received_at)
         VALUES ($1, $2, $4, $5, $6, $7, $8, $9, coalesce($10, now()))
         RETURNING folder_id, $3 AS folder, uid, content_id, size, flags, keywords, modseq, received_at, message_id,
                   return_path, delivered_to",
    )
    .bind(account)
    .bind(folder.folder_id)
    .bind(&folder.name)
    .bind(folder.uid_next)
    .bind(content.uuid())
    .bind(size as i64)
    .bind(flags.bits)
    .bind(&flags.keywords)
    .bind(modseq)
    .bind(received_at)
    .fetch_one(change.connection())
    .await?;
    let unseen = i64::from(flags.bits & SEEN == 0);
    folders::count(change, folder.folder_id, Added { messages: 1, unseen, bytes: size as i64, uids: 1 })
        .await?;
    Ok(row)
}
