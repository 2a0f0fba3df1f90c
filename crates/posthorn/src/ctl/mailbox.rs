//! `ctl mailbox`

mod change;
mod read;
mod watch;

use anyhow::Result;
use posthorn_api::mailbox::v1 as api;
use serde::Serialize;

use super::connect::{Services, each_page};
use super::output::{Output, Table};
use super::values::rfc3339;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Mailbox {
    /// The folders of a mailbox
    Folders { address: String },
    /// The messages of a mailbox
    List {
        address: String,
        /// Only those of a folder
        #[arg(long)]
        folder: Option<String>,
    },
    /// One message
    Read(read::Read),
    /// The changes of a mailbox, as they happen: a line each
    Watch(watch::Watch),
    /// Add and remove flags: seen, answered, flagged, deleted, draft, and words of one's own
    Flag(change::Flag),
    /// Move messages to another folder
    Move(change::Transfer),
    /// Copy messages to another folder
    Copy(change::Transfer),
    /// Move messages to Trash; those in Trash are deleted for good
    Delete(change::Delete),
    /// Remove messages for good: those named, or all that are flagged as deleted
    Expunge(change::Expunge),
    /// Put a message into a folder without delivering it
    Append(change::Append),
}

/// A folder as it is printed.
#[derive(Serialize)]
struct Folder {
    folder: String,
    messages: u32,
    unseen: u32,
    size: u64,
    special_use: String,
    uid_validity: u32,
    uid_next: u32,
    highest_modseq: u64,
}

impl From<api::Folder> for Folder {
    fn from(folder: api::Folder) -> Self {
        Self {
            folder: folder.name,
            messages: folder.messages,
            unseen: folder.unseen,
            size: folder.size,
            special_use: folder.special_use,
            uid_validity: folder.uid_validity,
            uid_next: folder.uid_next,
            highest_modseq: folder.highest_modseq,
        }
    }
}

/// A message of a folder as it is printed.
#[derive(Serialize)]
struct Message {
    folder: String,
    uid: u32,
    modseq: u64,
    size: u64,
    flags: Vec<String>,
    /// Posthorn's id, to trace it by.
    message_id: String,
    subject: String,
    received_at: Option<String>,
    from: String,
    header_message_id: String,
    date: Option<String>,
}

impl From<api::MessageSummary> for Message {
    fn from(message: api::MessageSummary) -> Self {
        Self {
            folder: message.folder,
            uid: message.uid,
            modseq: message.modseq,
            size: message.size,
            flags: message.flags,
            message_id: message.message_id,
            subject: message.subject,
            received_at: rfc3339(message.received_at),
            from: message.from,
            header_message_id: message.header_message_id,
            date: rfc3339(message.date),
        }
    }
}

impl Mailbox {
    pub(super) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        match self {
            Self::Folders { address } => folders(address, services, out).await,
            Self::List { address, folder } => list(address, folder, services, out).await,
            Self::Read(command) => command.run(services, out).await,
            Self::Watch(command) => command.run(services, out).await,
            Self::Flag(command) => command.run(services, out).await,
            Self::Move(command) => command.run_move(services, out).await,
            Self::Copy(command) => command.run_copy(services, out).await,
            Self::Delete(command) => command.run(services, out).await,
            Self::Expunge(command) => command.run(services, out).await,
            Self::Append(command) => command.run(services, out).await,
        }
    }
}

async fn folders(mailbox: String, services: &Services, out: &mut Output<'_>) -> Result<()> {
    let mut client = services.mailbox().await?;
    let answer = client.list_folders(api::ListFoldersRequest { mailbox }).await?.into_inner();
    let mut table = Table::new(&["folder", "messages", "unseen", "size", "special_use"]);
    table.rows(out, answer.folders.into_iter().map(Folder::from))?;
    if !out.json() {
        let quota = match answer.quota_bytes {
            0 => "no limit".to_owned(),
            quota => format!("of {quota}"),
        };
        out.line(&format!("{} bytes used, {quota}", answer.used_bytes))?;
    }
    Ok(())
}

async fn list(
    mailbox: String,
    folder: Option<String>,
    services: &Services,
    out: &mut Output<'_>,
) -> Result<()> {
    let mut client = services.mailbox().await?;
    let mut table = Table::new(&["folder", "uid", "size", "flags", "received_at", "from", "subject"]);
    let first = api::ListMessagesRequest {
        mailbox,
        folder: folder.unwrap_or_default(),
        page_size: 500,
        ..Default::default()
    };
    each_page(async |page_token| {
        let request = api::ListMessagesRequest { page_token, ..first.clone() };
        let page = client.list_messages(request).await?.into_inner();
        table.rows(out, page.messages.into_iter().map(Message::from))?;
        Ok(page.next_page_token)
    })
    .await
}
