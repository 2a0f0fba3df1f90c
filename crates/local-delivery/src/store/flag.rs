//! Changing flags.

use super::change::Change;
use super::folders::{self, Added, FolderRow};
use super::messages::MessageRow;
use crate::flags::{Flags, SEEN};

/// Gives these messages of a folder the flags that stand beside them, and a new mod-sequence each.
pub(crate) async fn set(
    change: &mut Change,
    folder: &FolderRow,
    changed: &mut [(&mut MessageRow, Flags)],
) -> sqlx::Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let mut unseen = 0;
    for (row, flags) in changed.iter_mut() {
        unseen += i64::from(row.flags & SEEN) - i64::from(flags.bits & SEEN);
        row.flags = flags.bits;
        row.keywords.clone_from(&flags.keywords);
        row.modseq = change.next_modseq();
    }
    let account = change.account();
    // Keywords hold no spaces, and Postgres has no arrays of arrays of different lengths.
    sqlx::query(
        "UPDATE mailbox.message m SET flags = c.flags, keywords = string_to_array(c.keywords, ' '), modseq = c.modseq
         FROM UNNEST($3::bigint[], $4::int[], $5::text[], $6::bigint[]) AS c (uid, flags, keywords, modseq)
         WHERE m.account_id = $1 AND m.folder_id = $2 AND m.uid = c.uid",
    )
    .bind(account)
    .bind(folder.folder_id)
    .bind(changed.iter().map(|(row, _)| row.uid).collect::<Vec<_>>())
    .bind(changed.iter().map(|(row, _)| row.flags).collect::<Vec<_>>())
    .bind(changed.iter().map(|(row, _)| row.keywords.join(" ")).collect::<Vec<_>>())
    .bind(changed.iter().map(|(row, _)| row.modseq).collect::<Vec<_>>())
    .execute(change.connection())
    .await?;
    folders::count(change, folder.folder_id, Added { unseen, ..Added::default() }).await
}
