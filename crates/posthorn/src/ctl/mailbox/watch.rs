//! `ctl mailbox watch`

use anyhow::{Result, bail};
use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::watch_response::Change;
use serde::Serialize;

use super::Message;
use crate::ctl::connect::Services;
use crate::ctl::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    address: String,
    /// Only this folder
    #[arg(long)]
    folder: Option<String>,
    /// First what has changed since: the last mod-sequence that was seen
    #[arg(long, value_name = "MODSEQ")]
    after: Option<u64>,
}

/// A change as it is printed.
#[derive(Serialize)]
struct Changed {
    change: &'static str,
    /// Of the mailbox after this change; to come back with.
    mailbox_modseq: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Nothing {},
    Message(Box<Message>),
    Gone { folder: String, uid: u32 },
}

impl Watch {
    /// Goes on until the service ends the stream, or whoever reads goes away.
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let request = api::WatchRequest {
            mailbox: self.address,
            folder: self.folder.unwrap_or_default(),
            after_modseq: self.after,
        };
        let mut stream = services.mailbox().await?.watch(request).await?.into_inner();
        let mut seen = self.after;
        while let Some(answer) = stream.message().await? {
            seen = Some(answer.modseq);
            let Some(change) = answer.change else { continue };
            let (change, what) = match change {
                Change::Started(_) => ("started", What::Nothing {}),
                Change::Message(message) => ("message", What::Message(Box::new(message.into()))),
                Change::Expunged(gone) => ("expunged", What::Gone { folder: gone.folder, uid: gone.uid }),
            };
            let text = match &what {
                What::Nothing {} => format!("{} watching", answer.modseq),
                What::Gone { folder, uid } => format!("{} expunged {folder} {uid}", answer.modseq),
                What::Message(message) => format!(
                    "{} message  {} {} [{}] {} {}",
                    answer.modseq,
                    message.folder,
                    message.uid,
                    message.flags.join(" "),
                    message.from,
                    message.subject
                ),
            };
            out.event(&Changed { change, mailbox_modseq: answer.modseq, what }, &text)?;
        }
        match seen {
            Some(modseq) => bail!("local-delivery ended the stream; go on with --after {modseq}"),
            None => bail!("local-delivery ended the stream"),
        }
    }
}
