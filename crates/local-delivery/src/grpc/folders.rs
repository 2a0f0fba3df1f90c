//! Folders.

use posthorn_api::mailbox::v1 as api;
use tonic::Status;

use super::Mailboxes;
use crate::error::Failure;
use crate::store::{self, folders::FolderRow};

impl Mailboxes {
    pub(super) async fn folders(
        &self,
        request: api::ListFoldersRequest,
    ) -> Result<api::ListFoldersResponse, Status> {
        let account = self.accounts.resolve(&request.mailbox).await?;
        let mut rows = store::folders::list(&self.pool, account.id).await.map_err(Failure::from)?;
        if rows.is_empty() {
            store::create(&self.pool, &[account.id]).await.map_err(Failure::from)?;
            rows = store::folders::list(&self.pool, account.id).await.map_err(Failure::from)?;
        }
        Ok(api::ListFoldersResponse {
            quota_bytes: account.quota,
            used_bytes: rows.iter().map(|folder| folder.size as u64).sum(),
            folders: rows.into_iter().map(folder).collect(),
        })
    }
}

/// A folder for the wire.
pub(super) fn folder(row: FolderRow) -> api::Folder {
    api::Folder {
        name: row.name,
        uid_validity: row.uid_validity as u32,
        uid_next: row.uid_next as u32,
        highest_modseq: row.highest_modseq as u64,
        messages: row.messages as u32,
        unseen: row.unseen as u32,
        size: row.size as u64,
        special_use: row.special_use.unwrap_or_default(),
    }
}
