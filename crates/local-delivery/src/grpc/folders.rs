//! Folders.

use posthorn_api::error::invalid;
use posthorn_api::mailbox::v1 as api;
use tonic::Status;

use super::Mailboxes;
use crate::error::Failure;
use crate::folder_name::FolderName;
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

    pub(super) async fn create(
        &self,
        request: api::CreateFolderRequest,
    ) -> Result<api::CreateFolderResponse, Status> {
        let name: FolderName = request.folder.parse().map_err(|e| invalid("folder", e))?;
        let mut change = self.begin(&request.mailbox).await?;
        let row = store::folders::create(&mut change, &name, self.config.max_folders).await?;
        self.commit(change).await?;
        Ok(api::CreateFolderResponse { folder: Some(folder(row)) })
    }

    pub(super) async fn rename(
        &self,
        request: api::RenameFolderRequest,
    ) -> Result<api::RenameFolderResponse, Status> {
        let from: FolderName = request.folder.parse().map_err(|e| invalid("folder", e))?;
        let to: FolderName = request.new_name.parse().map_err(|e| invalid("new_name", e))?;
        if from.is_inbox() {
            return Err(Failure::Inbox.into());
        }
        if to.is_below(&from) {
            return Err(Failure::BelowItself.into());
        }
        let mut change = self.begin(&request.mailbox).await?;
        let row = store::folders::rename(&mut change, &from, &to).await?;
        self.commit(change).await?;
        Ok(api::RenameFolderResponse { folder: Some(folder(row)) })
    }

    pub(super) async fn remove(
        &self,
        request: api::DeleteFolderRequest,
    ) -> Result<api::DeleteFolderResponse, Status> {
        let name: FolderName = request.folder.parse().map_err(|e| invalid("folder", e))?;
        if name.is_inbox() {
            return Err(Failure::Inbox.into());
        }
        loop {
            self.empty(&request.mailbox, &name).await?;
            let mut change = self.begin(&request.mailbox).await?;
            let row = store::folders::find(&mut change, &name).await?;
            // Something may have come in between.
            if row.messages == 0 {
                store::folders::remove(&mut change, &row).await.map_err(Failure::from)?;
                self.commit(change).await?;
                return Ok(api::DeleteFolderResponse {});
            }
        }
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
