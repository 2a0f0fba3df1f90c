//! Lists of messages.

use std::collections::HashMap;

use posthorn_api::error::invalid;
use posthorn_api::mailbox::v1 as api;
use posthorn_api::timestamp;
use posthorn_mail::MessageId;
use sqlx::PgConnection;
use tonic::Status;
use uuid::Uuid;

use super::Mailboxes;
use crate::error::Failure;
use crate::flags::Flags;
use crate::folder_name::FolderName;
use crate::store::{self, messages::After, messages::MessageRow};
use crate::summary::{PREFIX_BYTES, Summary};

const PAGE: u32 = 100;
const PAGE_AT_MOST: u32 = 1000;
/// Prefixes of so many contents are in memory at once: 2 MiB.
const PREFIXES: usize = 32;

impl Mailboxes {
    pub(super) async fn messages(
        &self,
        request: api::ListMessagesRequest,
    ) -> Result<api::ListMessagesResponse, Status> {
        let after = parse_token(&request.page_token)?;
        let folder = optional_folder("folder", &request.folder)?;
        let size = match request.page_size {
            0 => PAGE,
            size => size.min(PAGE_AT_MOST),
        };
        let account = self.accounts.resolve(&request.mailbox).await?;
        let name = folder.as_ref().map(FolderName::as_str);
        // One more than asked for tells whether there is a next page.
        let mut rows = store::messages::page(&self.pool, account.id, name, after, size + 1)
            .await
            .map_err(Failure::from)?;
        if rows.is_empty()
            && let Some(folder) = &folder
        {
            self.must_exist(account.id, folder).await?;
        }
        let more = rows.len() > size as usize;
        rows.truncate(size as usize);
        let next_page_token = rows.last().filter(|_| more).map(token).unwrap_or_default();
        let messages = self.summaries(rows, request.brief).await?;
        Ok(api::ListMessagesResponse { messages, next_page_token })
    }

    /// NOT_FOUND unless the mailbox has this folder, or will have it at its first use.
    pub(super) async fn must_exist(&self, account: Uuid, folder: &FolderName) -> Result<(), Status> {
        let folders = store::folders::list(&self.pool, account).await.map_err(Failure::from)?;
        let made = folders.iter().any(|row| row.name == folder.as_str());
        let to_be_made = folders.is_empty() && folder.is_first();
        if made || to_be_made { Ok(()) } else { Err(Failure::NoFolder.into()) }
    }

    /// Rows for the wire; unless `brief`, with the fields of their headers.
    pub(super) async fn summaries(
        &self,
        rows: Vec<MessageRow>,
        brief: bool,
    ) -> Result<Vec<api::MessageSummary>, Status> {
        if brief {
            return Ok(rows.into_iter().map(|row| summary(row, Summary::default())).collect());
        }
        let mut summaries = Vec::with_capacity(rows.len());
        for some in rows.chunks(PREFIXES) {
            let parsed = self.parsed(some).await.map_err(Failure::from)?;
            summaries.extend(some.iter().map(|row| {
                let parsed = parsed.get(&row.content_id).cloned().unwrap_or_default();
                summary(row.clone(), parsed)
            }));
        }
        Ok(summaries)
    }

    async fn parsed(&self, rows: &[MessageRow]) -> sqlx::Result<HashMap<Uuid, Summary>> {
        let mut ids: Vec<MessageId> = rows.iter().map(|row| row.content_id.into()).collect();
        ids.sort_unstable();
        ids.dedup();
        let read = async |connection: &mut PgConnection| {
            posthorn_content::read_prefixes(connection, &ids, PREFIX_BYTES).await
        };
        let prefixes = self.reading.with(read).await?;
        Ok(prefixes.into_iter().map(|(id, prefix)| (id.uuid(), Summary::parse(&prefix))).collect())
    }
}

/// A folder that may be left out.
pub(super) fn optional_folder(field: &str, text: &str) -> Result<Option<FolderName>, Status> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|e| invalid(field, e)),
    }
}

/// A message for the wire.
pub(super) fn summary(row: MessageRow, parsed: Summary) -> api::MessageSummary {
    api::MessageSummary {
        folder: row.folder,
        uid: row.uid as u32,
        modseq: row.modseq as u64,
        size: row.size as u64,
        flags: Flags::names(row.flags, row.keywords),
        received_at: Some(timestamp(row.received_at)),
        message_id: row.message_id.map(|id| id.to_string()).unwrap_or_default(),
        header_message_id: parsed.message_id,
        subject: parsed.subject,
        from: parsed.from,
        date: parsed.date.map(timestamp),
    }
}

/// Where the next page begins.
fn token(row: &MessageRow) -> String {
    format!("{:x}.{:x}", row.folder_id, row.uid)
}

fn parse_token(token: &str) -> Result<After, Status> {
    if token.is_empty() {
        return Ok(After::default());
    }
    let parse = || {
        let (folder, uid) = token.split_once('.')?;
        let folder_id = i32::from_str_radix(folder, 16).ok()?;
        Some(After { folder_id, uid: i64::from_str_radix(uid, 16).ok()? })
    };
    parse().ok_or_else(|| invalid("page_token", "is none that was given out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_nothing_else_is_one() {
        assert_eq!(parse_token("a.1f").unwrap(), After { folder_id: 10, uid: 31 });
        assert_eq!(parse_token("").unwrap(), After::default());
        for token in ["x", "1", "1.", ".1", "1.2.3", "99999999999.1"] {
            assert_eq!(parse_token(token).unwrap_err().code(), tonic::Code::InvalidArgument, "{token}");
        }
    }
}
