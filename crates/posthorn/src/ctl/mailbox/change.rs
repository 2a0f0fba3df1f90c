//! `ctl mailbox flag|move|copy|delete|expunge|append`

use anyhow::Result;
use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::append_message_request::Part;
use serde::Serialize;
use time::OffsetDateTime;

use super::Message;
use crate::ctl::connect::Services;
use crate::ctl::output::{Output, Table};
use crate::ctl::send::{CHUNK, contents};
use crate::ctl::values::point_in_time;

/// Messages of a folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    address: String,
    #[arg(required = true, value_name = "UID")]
    uids: Vec<u32>,
    /// The folder they are in
    #[arg(long, default_value = "INBOX")]
    folder: String,
}

impl Selection {
    fn wire(self) -> (String, Option<api::Selection>) {
        (self.address, Some(api::Selection { folder: self.folder, uids: self.uids }))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Flag {
    #[command(flatten)]
    selection: Selection,
    /// Set these flags
    #[arg(long, value_delimiter = ',', required_unless_present = "remove")]
    add: Vec<String>,
    /// Remove these flags
    #[arg(long, value_delimiter = ',')]
    remove: Vec<String>,
    /// Leave alone the messages that changed after this mod-sequence
    #[arg(long, value_name = "MODSEQ", default_value_t = 0)]
    unchanged_since: u64,
}

impl Flag {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let (mailbox, selection) = self.selection.wire();
        let request = api::SetFlagsRequest {
            mailbox,
            selection,
            add: self.add.iter().map(|name| flag(name)).collect(),
            remove: self.remove.iter().map(|name| flag(name)).collect(),
            unchanged_since: self.unchanged_since,
        };
        let answer = services.mailbox().await?.set_flags(request).await?.into_inner();
        let mut table = Table::new(&["folder", "uid", "modseq", "flags"]);
        table.rows(out, answer.messages.into_iter().map(Message::from))?;
        if !answer.modified_uids.is_empty() {
            anyhow::bail!("left alone, because they have changed: {:?}", answer.modified_uids);
        }
        Ok(())
    }
}

/// The system flags (RFC 3501 §2.3.2) need no backslash here.
fn flag(name: &str) -> String {
    let known = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"];
    match known.into_iter().find(|flag| flag[1..].eq_ignore_ascii_case(name)) {
        Some(flag) => flag.to_owned(),
        None => name.to_owned(),
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Transfer {
    #[command(flatten)]
    selection: Selection,
    /// The folder to put them in
    #[arg(long, value_name = "FOLDER")]
    to: String,
}

/// Where a message went, as it is printed.
#[derive(Serialize)]
struct Moved {
    from_uid: u32,
    to_folder: String,
    to_uid: u32,
}

impl Transfer {
    pub(crate) async fn run_move(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let (mailbox, selection) = self.selection.wire();
        let request = api::MoveMessagesRequest { mailbox, selection, to_folder: self.to.clone() };
        let answer = services.mailbox().await?.move_messages(request).await?.into_inner();
        print(answer.messages, self.to, out)
    }

    pub(crate) async fn run_copy(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let (mailbox, selection) = self.selection.wire();
        let request = api::CopyMessagesRequest { mailbox, selection, to_folder: self.to.clone() };
        let answer = services.mailbox().await?.copy_messages(request).await?.into_inner();
        print(answer.messages, self.to, out)
    }
}

fn print(messages: Vec<api::MovedMessage>, to_folder: String, out: &mut Output<'_>) -> Result<()> {
    let moved = |message: api::MovedMessage| Moved {
        from_uid: message.from_uid,
        to_folder: to_folder.clone(),
        to_uid: message.to_uid,
    };
    Ok(Table::new(&["from_uid", "to_folder", "to_uid"]).rows(out, messages.into_iter().map(moved))?)
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    selection: Selection,
}

impl Delete {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        #[derive(Serialize)]
        struct Deleted {
            deleted: u32,
        }
        let (mailbox, selection) = self.selection.wire();
        let request = api::DeleteMessagesRequest { mailbox, selection };
        let deleted = services.mailbox().await?.delete_messages(request).await?.into_inner().deleted;
        Ok(out.done(&Deleted { deleted }, &format!("{deleted} deleted"))?)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Expunge {
    address: String,
    /// Which; without any, all that are flagged as deleted
    #[arg(value_name = "UID")]
    uids: Vec<u32>,
    /// The folder they are in
    #[arg(long, default_value = "INBOX")]
    folder: String,
}

impl Expunge {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        #[derive(Serialize)]
        struct Expunged {
            uids: Vec<u32>,
        }
        let request =
            api::ExpungeMessagesRequest { mailbox: self.address, folder: self.folder, uids: self.uids };
        let uids = services.mailbox().await?.expunge_messages(request).await?.into_inner().uids;
        let text = format!("{} expunged", uids.len());
        Ok(out.done(&Expunged { uids }, &text)?)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Append {
    address: String,
    /// A message in a file; "-" is standard input
    file: String,
    #[arg(long, default_value = "INBOX")]
    folder: String,
    /// Set these flags on it
    #[arg(long = "flag", value_delimiter = ',')]
    flags: Vec<String>,
    /// As if it had come then (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    received_at: Option<OffsetDateTime>,
}

impl Append {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let content = contents(&self.file).await?;
        let start = api::AppendStart {
            mailbox: self.address,
            folder: self.folder,
            flags: self.flags.iter().map(|name| flag(name)).collect(),
            received_at: self.received_at.map(posthorn_api::timestamp),
        };
        let mut parts = vec![Part::Start(start)];
        parts.extend(
            (0..content.len())
                .step_by(CHUNK)
                .map(|at| Part::Chunk(content.slice(at..content.len().min(at + CHUNK)))),
        );
        let requests = parts.into_iter().map(|part| api::AppendMessageRequest { part: Some(part) });
        let answer =
            services.mailbox().await?.append_message(tokio_stream::iter(requests)).await?.into_inner();
        Ok(out.record(&Message::from(answer.message.unwrap_or_default()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_flags_need_no_backslash() {
        for (typed, meant) in
            [("seen", "\\Seen"), ("\\Seen", "\\Seen"), ("DRAFT", "\\Draft"), ("$Junk", "$Junk")]
        {
            assert_eq!(flag(typed), meant);
        }
    }
}
