//! `ctl send`

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use posthorn_api::mail::v1 as mail;
use posthorn_api::submission::v1 as api;
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

use super::connect::Services;
use super::output::Output;
use super::values::{Status, rfc3339};

/// What goes in one part of a stream.
pub(super) const CHUNK: usize = 256 << 10;
/// From this size on a message goes as a stream.
const LARGE: usize = 1 << 20;
/// The most that is read: far more than any server takes.
const LIMIT: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("content").required(true).multiple(true).args(["file", "text", "html", "attachments"]))]
pub(super) struct Send {
    /// The sender: ADDRESS, or `NAME <ADDRESS>`; `<>` is the null sender
    #[arg(long, value_name = "ADDRESS")]
    from: String,
    /// A recipient; may be repeated
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["cc", "bcc"])]
    to: Vec<String>,
    /// A recipient of a copy; may be repeated
    #[arg(long, value_name = "ADDRESS", conflicts_with = "file")]
    cc: Vec<String>,
    /// A recipient whom the others don't see; may be repeated
    #[arg(long, value_name = "ADDRESS", conflicts_with = "file")]
    bcc: Vec<String>,
    /// The subject
    #[arg(long, conflicts_with = "file")]
    subject: Option<String>,
    /// Plain-text body
    #[arg(long, conflicts_with = "file")]
    text: Option<String>,
    /// HTML body
    #[arg(long, conflicts_with = "file")]
    html: Option<String>,
    /// Attach a file; may be repeated
    #[arg(long = "attach", value_name = "FILE", conflicts_with = "file")]
    attachments: Vec<String>,
    /// One more header; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", conflicts_with = "file", value_parser = header)]
    headers: Vec<api::Header>,
    /// Send it only once, however often it is handed in with this key
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// When to tell the sender: never, or success, failure, delay
    #[arg(long, value_delimiter = ',', value_name = "WHEN")]
    notify: Vec<Notify>,
    /// How much of the message a failure notice brings back
    #[arg(long)]
    ret: Option<Ret>,
    /// An id for the sender's notices (ENVID)
    #[arg(long, value_name = "ID")]
    envelope_id: Option<String>,
    /// A whole message (RFC 5322) in a file; "-" is standard input
    file: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Notify {
    Never,
    Success,
    Failure,
    Delay,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Ret {
    Full,
    Headers,
}

/// The answer as it is printed.
#[derive(Serialize)]
struct Sent {
    message_id: String,
    accepted_at: Option<String>,
    recipients: Vec<RecipientResult>,
}

#[derive(Serialize)]
struct RecipientResult {
    address: String,
    accepted: bool,
    status: Option<Status>,
}

impl Send {
    /// Fails when a recipient was refused, even if others were not.
    pub(super) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let mut client = services.submission().await?;
        let answer = match &self.file {
            Some(file) => {
                let content = contents(file).await?;
                let envelope = self.envelope(&content);
                let key = self.idempotency_key.unwrap_or_default();
                if content.len() >= LARGE {
                    let requests = stream(envelope, key, content);
                    let answer = client.submit_stream(tokio_stream::iter(requests)).await?.into_inner();
                    let api::SubmitStreamResponse { message_id, recipients, accepted_at } = answer;
                    api::SubmitResponse { message_id, recipients, accepted_at }
                } else {
                    let content = Some(api::submit_request::Content::Raw(content));
                    let request =
                        api::SubmitRequest { envelope: Some(envelope), content, idempotency_key: key };
                    client.submit(request).await?.into_inner()
                }
            }
            None => {
                let content = Some(api::submit_request::Content::Message(self.message().await?));
                let envelope = Some(self.envelope(&[]));
                let idempotency_key = self.idempotency_key.unwrap_or_default();
                client.submit(api::SubmitRequest { envelope, content, idempotency_key }).await?.into_inner()
            }
        };
        print(answer, out)
    }

    fn envelope(&self, content: &[u8]) -> mail::Envelope {
        let notify = (!self.notify.is_empty()).then(|| mail::Notify {
            never: self.notify.contains(&Notify::Never),
            success: self.notify.contains(&Notify::Success),
            failure: self.notify.contains(&Notify::Failure),
            delay: self.notify.contains(&Notify::Delay),
        });
        let recipient = |address: &String| mail::Recipient {
            address: mailbox(address).address,
            notify,
            original_recipient: String::new(),
        };
        let recipients: Vec<_> =
            [&self.to, &self.cc, &self.bcc].into_iter().flatten().map(recipient).collect();
        let sender = mailbox(&self.from).address;
        let body = if content.is_ascii() { mail::Body::SevenBit } else { mail::Body::EightBitMime };
        let ret = match self.ret {
            None => mail::Ret::Unspecified,
            Some(Ret::Full) => mail::Ret::Full,
            Some(Ret::Headers) => mail::Ret::Headers,
        };
        mail::Envelope {
            // RFC 6531 §3.1: UTF-8 in an address or in a header.
            smtputf8: !sender.is_ascii()
                || recipients.iter().any(|recipient| !recipient.address.is_ascii())
                || !headers(content).is_ascii(),
            sender,
            recipients,
            body: body.into(),
            ret: ret.into(),
            envelope_id: self.envelope_id.clone().unwrap_or_default(),
        }
    }

    async fn message(&self) -> Result<api::StructuredMessage> {
        let mailboxes = |addresses: &[String]| addresses.iter().map(|text| mailbox(text)).collect();
        let mut attachments = Vec::new();
        for file in &self.attachments {
            let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy().into_owned();
            attachments.push(api::Attachment {
                filename: name,
                content: contents(file).await?,
                ..Default::default()
            });
        }
        Ok(api::StructuredMessage {
            from: Some(mailbox(&self.from)),
            to: mailboxes(&self.to),
            cc: mailboxes(&self.cc),
            bcc: mailboxes(&self.bcc),
            subject: self.subject.clone().unwrap_or_default(),
            text: self.text.clone().unwrap_or_default(),
            html: self.html.clone().unwrap_or_default(),
            attachments,
            headers: self.headers.clone(),
            ..Default::default()
        })
    }
}

/// The bytes of a file, or of standard input for "-".
pub(super) async fn contents(file: &str) -> Result<Bytes> {
    let mut content = Vec::new();
    let read = match file {
        "-" => tokio::io::stdin().take(LIMIT + 1).read_to_end(&mut content).await,
        file => match tokio::fs::File::open(file).await {
            Ok(open) => open.take(LIMIT + 1).read_to_end(&mut content).await,
            Err(error) => Err(error),
        },
    };
    read.with_context(|| format!("reading {file}"))?;
    if content.len() as u64 > LIMIT {
        bail!("{file} is larger than 1 GiB");
    }
    Ok(content.into())
}

fn stream(
    envelope: mail::Envelope,
    idempotency_key: String,
    content: Bytes,
) -> impl Iterator<Item = api::SubmitStreamRequest> {
    use api::submit_stream_request::Part;
    let start = api::SubmitStreamStart { envelope: Some(envelope), idempotency_key };
    let chunks = (0..content.len())
        .step_by(CHUNK)
        .map(move |at| Part::Chunk(content.slice(at..content.len().min(at + CHUNK))));
    std::iter::once(Part::Start(start))
        .chain(chunks)
        .map(|part| api::SubmitStreamRequest { part: Some(part) })
}

/// `alice@example.test`, or `Alice <alice@example.test>`.
fn mailbox(text: &str) -> api::Mailbox {
    let parts = text.trim().strip_suffix('>').and_then(|text| text.rsplit_once('<'));
    match parts {
        Some((name, address)) => {
            api::Mailbox { address: address.to_owned(), name: name.trim().trim_matches('"').to_owned() }
        }
        None => api::Mailbox { address: text.trim().to_owned(), name: String::new() },
    }
}

fn header(text: &str) -> Result<api::Header, String> {
    let (name, value) = text.split_once(':').ok_or("a header is as in \"X-Name: value\"")?;
    Ok(api::Header { name: name.trim().to_owned(), value: value.trim().to_owned() })
}

/// The header section.
fn headers(content: &[u8]) -> &[u8] {
    let end = content.windows(2).position(|two| two == b"\n\n" || two == b"\n\r");
    &content[..end.unwrap_or(content.len())]
}

/// The id for people and scripts; refused recipients are an error.
fn print(answer: api::SubmitResponse, out: &mut Output<'_>) -> Result<()> {
    let result = |result: api::RecipientResult| RecipientResult {
        address: result.address,
        accepted: result.accepted,
        status: result.status.map(Into::into),
    };
    let sent = Sent {
        message_id: answer.message_id,
        accepted_at: rfc3339(answer.accepted_at),
        recipients: answer.recipients.into_iter().map(result).collect(),
    };
    out.done(&sent, &sent.message_id)?;
    let refused = sent.recipients.iter().filter(|recipient| !recipient.accepted);
    let refused: Vec<String> = refused
        .map(|recipient| match &recipient.status {
            Some(status) => format!("{}: {status}", recipient.address),
            None => recipient.address.clone(),
        })
        .collect();
    if refused.is_empty() { Ok(()) } else { bail!("not accepted for {}", refused.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_written_with_or_without_a_name() {
        for (text, address, name) in [
            ("a@example.net", "a@example.net", ""),
            ("<a@example.net>", "a@example.net", ""),
            ("Ann B <a@example.net>", "a@example.net", "Ann B"),
            ("\"B, Ann\" <a@example.net>", "a@example.net", "B, Ann"),
            ("<>", "", ""),
            ("", "", ""),
        ] {
            let read = mailbox(text);
            assert_eq!((read.address.as_str(), read.name.as_str()), (address, name), "{text}");
        }
    }

    #[test]
    fn a_large_message_goes_in_chunks() {
        let content = Bytes::from(vec![b'x'; 2 * CHUNK + 1]);
        let parts: Vec<_> = stream(mail::Envelope::default(), String::new(), content).collect();
        assert_eq!(parts.len(), 4);
    }

    #[test]
    fn headers_end_at_the_empty_line() {
        for (content, expected) in [("A: b\r\n\r\nü", "A: b\r"), ("A: b\n\nü", "A: b"), ("A: b", "A: b")] {
            assert_eq!(headers(content.as_bytes()), expected.as_bytes());
        }
    }
}
