//! `ctl mailbox read`

use anyhow::{Context as _, Result, bail};
use mail_parser::{MessageParser, MimeHeaders as _};
use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::get_message_response::Part as Got;
use serde::Serialize;

use super::Message;
use crate::ctl::connect::Services;
use crate::ctl::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Read {
    address: String,
    uid: u32,
    #[arg(long, default_value = "INBOX")]
    folder: String,
    /// The bytes as they are stored, and nothing else
    #[arg(long)]
    raw: bool,
    /// Only the headers
    #[arg(long, conflicts_with = "raw")]
    headers: bool,
}

/// A message with its words as it is printed.
#[derive(Serialize)]
struct Readable {
    #[serde(flatten)]
    message: Message,
    text: String,
    attachments: Vec<String>,
}

impl Read {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let part = if self.headers { api::Part::Headers } else { api::Part::Raw };
        let request = api::GetMessageRequest {
            mailbox: self.address,
            folder: self.folder,
            uid: self.uid,
            part: part.into(),
            ..Default::default()
        };
        let mut stream = services.mailbox().await?.get_message(request).await?.into_inner();
        let (mut summary, mut bytes) = (None, Vec::new());
        while let Some(answer) = stream.message().await? {
            match answer.part {
                Some(Got::Summary(message)) => summary = Some(message),
                // Nothing is kept of what goes straight through.
                Some(Got::Chunk(chunk)) if self.raw => out.raw(&chunk)?,
                Some(Got::Chunk(chunk)) => bytes.extend_from_slice(&chunk),
                None => {}
            }
        }
        if self.raw {
            return Ok(());
        }
        let Some(summary) = summary else { bail!("local-delivery ended its answer before it began") };
        if self.headers && !out.json() {
            return print(&String::from_utf8_lossy(&bytes), out);
        }
        let readable = readable(summary, &bytes)?;
        if out.json() { Ok(out.object(&readable)?) } else { print(&view(&readable, &bytes), out) }
    }
}

/// Several lines, each without what controls a terminal.
fn print(text: &str, out: &mut Output<'_>) -> Result<()> {
    text.lines().try_for_each(|line| out.line(&line.replace('\t', "        "))).map_err(Into::into)
}

fn readable(summary: api::MessageSummary, bytes: &[u8]) -> Result<Readable> {
    let parsed =
        MessageParser::new().parse(bytes).context("the message has no headers: read it with --raw")?;
    let attachment = |part: &mail_parser::MessagePart<'_>| {
        let kind = part.content_type().map(|kind| match kind.subtype() {
            Some(subtype) => format!("{}/{subtype}", kind.ctype()),
            None => kind.ctype().to_owned(),
        });
        let kind = kind.unwrap_or_else(|| "text/plain".to_owned());
        match part.attachment_name() {
            Some(name) => format!("{name} ({kind}, {} bytes)", part.len()),
            None => format!("{kind}, {} bytes", part.len()),
        }
    };
    Ok(Readable {
        message: summary.into(),
        text: parsed.body_text(0).unwrap_or_default().into_owned(),
        attachments: parsed.attachments().map(attachment).collect(),
    })
}

/// The headers that people read, an empty line, the text, and what is attached.
fn view(readable: &Readable, bytes: &[u8]) -> String {
    let mut out = String::new();
    if let Some(parsed) = MessageParser::new().parse_headers(bytes) {
        let seen = ["From", "To", "Cc", "Reply-To", "Date"];
        for name in seen {
            if let Some(value) = parsed.header_raw(name) {
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                out.push_str(&format!("{name}: {value}\n"));
            }
        }
        out.push_str(&format!("Subject: {}\n", parsed.subject().unwrap_or_default()));
    }
    out.push_str(&format!("\n{}\n", readable.text.trim_end()));
    if !readable.attachments.is_empty() {
        out.push('\n');
    }
    for attachment in &readable.attachments {
        out.push_str(&format!("Attached: {attachment}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_as_people_read_it() {
        let message = "Return-Path: <a@example.net>\r\nFrom: =?utf-8?Q?J=C3=BCrgen?= <j@example.net>\r\nTo: \
                       alice@example.test,\r\n bob@example.test\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nMIME-Version: \
                       1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain; \
                       charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSch=C3=B6n!\r\n\r\n--x\r\nContent-Type: \
                       application/pdf; name=a.pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\nabc\r\n--x--\r\n";
        let readable = readable(api::MessageSummary::default(), message.as_bytes()).unwrap();
        assert_eq!(
            view(&readable, message.as_bytes()),
            "From: =?utf-8?Q?J=C3=BCrgen?= <j@example.net>\nTo: alice@example.test, \
             bob@example.test\nSubject: Grüße\n\nSchön!\n\nAttached: a.pdf (application/pdf, 3 bytes)\n"
        );
    }
}
