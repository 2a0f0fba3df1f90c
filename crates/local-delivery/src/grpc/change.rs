//! Changes of messages: flags, copies, moves, removals.

use posthorn_api::error::invalid;
use posthorn_api::mailbox::v1 as api;
use tonic::Status;

use super::Mailboxes;
use super::messages::summary;
use crate::error::Failure;
use crate::flags::Flags;
use crate::folder_name::FolderName;
use crate::store::change::Change;
use crate::store::folders::{self, FolderRow};
use crate::store::messages::{MessageRow, Which, select};
use crate::store::{expunge, flag, transfer};
use crate::summary::Summary;

/// UIDs in a call, and messages in a transaction, at most.
const UIDS: usize = 10_000;

/// A selection, parsed.
struct Selected {
    folder: FolderName,
    uids: Vec<i64>,
}

impl Mailboxes {
    pub(super) async fn set_message_flags(
        &self,
        request: api::SetFlagsRequest,
    ) -> Result<api::SetFlagsResponse, Status> {
        let selected = selected(request.selection)?;
        let add = Flags::parse(&request.add).map_err(|e| invalid("add", e))?;
        let remove = Flags::parse(&request.remove).map_err(|e| invalid("remove", e))?;
        let unchanged_since = match request.unchanged_since {
            0 => i64::MAX,
            modseq => i64::try_from(modseq).unwrap_or(i64::MAX),
        };
        let mut change = self.begin(&request.mailbox).await?;
        let (folder, mut rows) = find(&mut change, &selected).await?;
        // RFC 7162 §3.1.3: those that changed meanwhile are left alone, and named.
        let modified =
            rows.iter().filter(|row| row.modseq > unchanged_since).map(|row| row.uid as u32).collect();
        rows.retain(|row| row.modseq <= unchanged_since);
        let mut changed: Vec<(&mut MessageRow, Flags)> = rows
            .iter_mut()
            .filter_map(|row| {
                let flags = Flags { bits: row.flags, keywords: row.keywords.clone() };
                flags.changed(&add, &remove).map(|flags| (row, flags))
            })
            .collect();
        flag::set(&mut change, &folder, &mut changed).await.map_err(Failure::from)?;
        self.commit(change).await?;
        let messages = rows.into_iter().map(|row| summary(row, Summary::default())).collect();
        Ok(api::SetFlagsResponse { messages, modified_uids: modified })
    }

    pub(super) async fn copy(
        &self,
        request: api::CopyMessagesRequest,
    ) -> Result<api::CopyMessagesResponse, Status> {
        let selected = selected(request.selection)?;
        let to: FolderName = request.to_folder.parse().map_err(|e| invalid("to_folder", e))?;
        let quota = self.accounts.resolve(&request.mailbox).await?.quota;
        let mut change = self.begin(&request.mailbox).await?;
        let (_, rows) = find(&mut change, &selected).await?;
        let to = folders::find(&mut change, &to).await?;
        let bytes = rows.iter().map(|row| row.size as u64).sum();
        if crate::placement::fits(change.used_bytes(), bytes, quota).is_err() {
            return Err(Failure::Full.into());
        }
        let new = transfer::copy(&mut change, &rows, &to).await.map_err(Failure::from)?;
        self.commit(change).await?;
        Ok(api::CopyMessagesResponse { messages: moved(&rows, new) })
    }

    pub(super) async fn transfer(
        &self,
        request: api::MoveMessagesRequest,
    ) -> Result<api::MoveMessagesResponse, Status> {
        let selected = selected(request.selection)?;
        let to: FolderName = request.to_folder.parse().map_err(|e| invalid("to_folder", e))?;
        let mut change = self.begin(&request.mailbox).await?;
        let (from, rows) = find(&mut change, &selected).await?;
        let to = folders::find(&mut change, &to).await?;
        let new = transfer::transfer(&mut change, &rows, &from, &to).await.map_err(Failure::from)?;
        self.commit(change).await?;
        Ok(api::MoveMessagesResponse { messages: moved(&rows, new) })
    }

    pub(super) async fn delete(
        &self,
        request: api::DeleteMessagesRequest,
    ) -> Result<api::DeleteMessagesResponse, Status> {
        let selected = selected(request.selection)?;
        let mut change = self.begin(&request.mailbox).await?;
        let (from, rows) = find(&mut change, &selected).await?;
        match folders::trash(&mut change).await.map_err(Failure::from)? {
            Some(trash) if trash.folder_id != from.folder_id => {
                transfer::transfer(&mut change, &rows, &from, &trash).await.map_err(Failure::from)?;
            }
            _ => expunge::expunge(&mut change, &rows, &from).await.map_err(Failure::from)?,
        }
        self.commit(change).await?;
        Ok(api::DeleteMessagesResponse { deleted: rows.len() as u32 })
    }

    pub(super) async fn expunge(
        &self,
        request: api::ExpungeMessagesRequest,
    ) -> Result<api::ExpungeMessagesResponse, Status> {
        let folder = FolderName::or_inbox(&request.folder).map_err(|e| invalid("folder", e))?;
        let named = parse_uids("uids", &request.uids)?;
        let which = if named.is_empty() { Which::Deleted } else { Which::Uids(&named) };
        let mut uids = Vec::new();
        // A folder of any size is emptied in transactions of a bounded one.
        loop {
            let mut change = self.begin(&request.mailbox).await?;
            let folder = folders::find(&mut change, &folder).await?;
            let rows = select(&mut change, &folder, which, UIDS as u32).await.map_err(Failure::from)?;
            expunge::expunge(&mut change, &rows, &folder).await.map_err(Failure::from)?;
            self.commit(change).await?;
            uids.extend(rows.iter().map(|row| row.uid as u32));
            if rows.len() < UIDS {
                break;
            }
        }
        if !named.is_empty() && uids.is_empty() {
            return Err(Failure::NoMessage.into());
        }
        Ok(api::ExpungeMessagesResponse { uids })
    }

    /// Removes all messages of a folder for good.
    pub(super) async fn empty(&self, mailbox: &str, folder: &FolderName) -> Result<(), Status> {
        loop {
            let mut change = self.begin(mailbox).await?;
            let folder = folders::find(&mut change, folder).await?;
            let rows = select(&mut change, &folder, Which::All, UIDS as u32).await.map_err(Failure::from)?;
            if rows.is_empty() {
                return Ok(());
            }
            expunge::expunge(&mut change, &rows, &folder).await.map_err(Failure::from)?;
            self.commit(change).await?;
        }
    }

    /// Begins a change of the mailbox of this address.
    pub(super) async fn begin(&self, mailbox: &str) -> Result<Change, Status> {
        let account = self.accounts.resolve(mailbox).await?;
        Ok(Change::begin(&self.pool, account.id).await.map_err(Failure::from)?)
    }

    /// Makes a change last, and tells those who watch.
    pub(super) async fn commit(&self, change: Change) -> Result<(), Status> {
        let account = change.account();
        let modseq = change.commit().await.map_err(Failure::from)?;
        self.changed.tell(account, modseq);
        Ok(())
    }
}

/// The folder and those of the messages that are there; NOT_FOUND when none is.
async fn find(change: &mut Change, selected: &Selected) -> Result<(FolderRow, Vec<MessageRow>), Failure> {
    let folder = folders::find(change, &selected.folder).await?;
    let rows = select(change, &folder, Which::Uids(&selected.uids), UIDS as u32).await?;
    if rows.is_empty() { Err(Failure::NoMessage) } else { Ok((folder, rows)) }
}

fn selected(selection: Option<api::Selection>) -> Result<Selected, Status> {
    let selection = selection.ok_or_else(|| invalid("selection", "is missing"))?;
    let folder = FolderName::or_inbox(&selection.folder).map_err(|e| invalid("selection.folder", e))?;
    let uids = parse_uids("selection.uids", &selection.uids)?;
    if uids.is_empty() {
        return Err(invalid("selection.uids", "is empty"));
    }
    Ok(Selected { folder, uids })
}

fn parse_uids(field: &str, uids: &[u32]) -> Result<Vec<i64>, Status> {
    if uids.len() > UIDS {
        return Err(invalid(field, "has more than 10,000 UIDs"));
    }
    if uids.contains(&0) {
        return Err(invalid(field, "0 is no UID"));
    }
    Ok(uids.iter().map(|uid| i64::from(*uid)).collect())
}

fn moved(rows: &[MessageRow], new: Vec<i64>) -> Vec<api::MovedMessage> {
    let one =
        |(row, to): (&MessageRow, i64)| api::MovedMessage { from_uid: row.uid as u32, to_uid: to as u32 };
    rows.iter().zip(new).map(one).collect()
}
