//! Removing messages for good.

use posthorn_mail::MessageId;

use super::change::Change;
use super::folders::{self, Added, FolderRow};
use super::messages::{MessageRow, sum};

/// Removes these messages, all of `folder`. Their contents are left to the collector, which looks who else refers to
/// them.
pub(crate) async fn expunge(
    change: &mut Change,
    rows: &[MessageRow],
    folder: &FolderRow,
) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let account = change.account();
    sqlx::query("DELETE FROM mailbox.message WHERE account_id = $1 AND folder_id = $2 AND uid = ANY($3)")
        .bind(account)
        .bind(folder.folder_id)
        .bind(rows.iter().map(|row| row.uid).collect::<Vec<_>>())
        .execute(change.connection())
        .await?;
    note(change, rows, folder).await?;
    let contents: Vec<MessageId> = rows.iter().map(|row| row.content_id.into()).collect();
    posthorn_content::release(change.connection(), &contents).await
}

/// Writes down, for those who watch, that these messages are no longer in `folder`, and counts that.
pub(crate) async fn note(change: &mut Change, rows: &[MessageRow], folder: &FolderRow) -> sqlx::Result<()> {
    let account = change.account();
    let modseqs: Vec<i64> = rows.iter().map(|_| change.next_modseq()).collect();
    sqlx::query(
        "INSERT INTO mailbox.expunged (account_id, folder_id, modseq, uid)
         SELECT $1, $2, * FROM UNNEST($3::bigint[], $4::bigint[])",
    )
    .bind(account)
    .bind(folder.folder_id)
    .bind(modseqs)
    .bind(rows.iter().map(|row| row.uid).collect::<Vec<_>>())
    .execute(change.connection())
    .await?;
    let Added { messages, unseen, bytes, .. } = sum(rows);
    let gone = Added { messages: -messages, unseen: -unseen, bytes: -bytes, uids: 0 };
    folders::count(change, folder.folder_id, gone).await
}
