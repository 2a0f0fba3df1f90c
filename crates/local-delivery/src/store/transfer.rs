//! Copying and moving messages between the folders of a mailbox.

use super::change::Change;
use super::expunge;
use super::folders::{self, Added, FolderRow};
use super::messages::{MessageRow, sum};

/// Copies these messages, all of one folder, into `to`: the content is shared, flags and dates stay (RFC 3501 §6.4.7).
/// Returns the UIDs that they get, in order.
pub(crate) async fn copy(change: &mut Change, rows: &[MessageRow], to: &FolderRow) -> sqlx::Result<Vec<i64>> {
    let new = uids(rows, to);
    let account = change.account();
    let modseqs: Vec<i64> = rows.iter().map(|_| change.next_modseq()).collect();
    sqlx::query(
        "INSERT INTO mailbox.message (account_id, folder_id, uid, content_id, size, flags, keywords, modseq,
                                      received_at, message_id, return_path, delivered_to)
         SELECT m.account_id, $3, c.new, content_id, size, flags, keywords, c.modseq, received_at, message_id,
                return_path, delivered_to
         FROM mailbox.message m
         JOIN UNNEST($4::bigint[], $5::bigint[], $6::bigint[]) AS c (old, new, modseq) ON m.uid = c.old
         WHERE m.account_id = $1 AND m.folder_id = $2",
    )
    .bind(account)
    .bind(rows.first().map(|row| row.folder_id))
    .bind(to.folder_id)
    .bind(rows.iter().map(|row| row.uid).collect::<Vec<_>>())
    .bind(&new)
    .bind(modseqs)
    .execute(change.connection())
    .await?;
    folders::count(change, to.folder_id, Added { uids: rows.len() as i64, ..sum(rows) }).await?;
    Ok(new)
}

/// Moves these messages, all of `from`, into `to` (RFC 6851). Returns the UIDs that they get, in order.
pub(crate) async fn transfer(
    change: &mut Change,
    rows: &[MessageRow],
    from: &FolderRow,
    to: &FolderRow,
) -> sqlx::Result<Vec<i64>> {
    let new = uids(rows, to);
    let account = change.account();
    let modseqs: Vec<i64> = rows.iter().map(|_| change.next_modseq()).collect();
    sqlx::query(
        "UPDATE mailbox.message m SET folder_id = $3, uid = c.new, modseq = c.modseq
         FROM UNNEST($4::bigint[], $5::bigint[], $6::bigint[]) AS c (old, new, modseq)
         WHERE m.account_id = $1 AND m.folder_id = $2 AND m.uid = c.old",
    )
    .bind(account)
    .bind(from.folder_id)
    .bind(to.folder_id)
    .bind(rows.iter().map(|row| row.uid).collect::<Vec<_>>())
    .bind(&new)
    .bind(modseqs)
    .execute(change.connection())
    .await?;
    folders::count(change, to.folder_id, Added { uids: rows.len() as i64, ..sum(rows) }).await?;
    expunge::note(change, rows, from).await?;
    Ok(new)
}

fn uids(rows: &[MessageRow], to: &FolderRow) -> Vec<i64> {
    (to.uid_next..).take(rows.len()).collect()
}
