//! Messages come out of a mailbox as they went in, below the headers that tell of their way.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use mail_parser::MessageParser;
use posthorn_api::mail::v1::{Body, Envelope, Recipient};
use posthorn_api::submission::v1::submission_service_client::SubmissionServiceClient;
use posthorn_api::submission::v1::submit_request::Content;
use posthorn_api::submission::v1::{
    SubmitRequest, SubmitStreamRequest, SubmitStreamStart, submit_stream_request,
};
use posthorn_e2e::{Posthorn, headers_above, queued_as};
use posthorn_testkit::smtp_client::SmtpClient;

const ALICE: &str = "alice@example.test";
const CAROL: &str = "carol@elsewhere.test";
/// What a message gets on its way from another server into a mailbox, from the top.
const TRACE: [&str; 3] = ["Return-Path", "Delivered-To", "Received"];

/// Messages that were accepted, by their id: name and content.
type Sent = BTreeMap<String, (String, Vec<u8>)>;

#[tokio::test(flavor = "multi_thread")]
async fn by_smtp_and_by_grpc() -> Result<()> {
    let posthorn = Posthorn::start().await?;
    let corpus = corpus()?;
    let mut sent = Sent::new();
    for (name, content) in &corpus {
        // DATA cannot carry a last line without its end: the client has to add it.
        let mut lines = content.clone();
        if !content.ends_with(b"\r\n") {
            lines.extend_from_slice(b"\r\n");
        }
        sent.insert(
            by_data(&posthorn, &lines).await.context(name.clone())?,
            (format!("{name} by DATA"), lines),
        );
        for (chunk, binary) in [(1000, false), (usize::MAX, true)] {
            let id = by_bdat(&posthorn, content, chunk, binary).await.context(name.clone())?;
            sent.insert(id, (format!("{name} by BDAT in chunks of {chunk}"), content.clone()));
        }
    }
    check(&posthorn, &sent).await?;

    let earlier = sent.len();
    let mut submitted = Sent::new();
    for (name, content) in &corpus {
        if !has_author(content) {
            let refused = by_submit(&posthorn, content).await.err().context(name.clone())?;
            let code = refused.downcast_ref::<tonic::Status>().map(tonic::Status::code);
            ensure!(code == Some(tonic::Code::InvalidArgument), "{name}: {refused:#}");
            continue;
        }
        if !is_complete(content) {
            continue;
        }
        let id = by_submit(&posthorn, content).await.context(name.clone())?;
        submitted.insert(id, (format!("{name} by Submit"), content.clone()));
        let id = by_stream(&posthorn, content, 1000).await.context(name.clone())?;
        submitted.insert(id, (format!("{name} by SubmitStream"), content.clone()));
    }
    posthorn.wait_for_mail(ALICE, earlier + submitted.len()).await?;
    check(&posthorn, &submitted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_forty_megabytes() -> Result<()> {
    let posthorn = Posthorn::start().await?;
    let large = forty_megabytes();
    let mut sent = Sent::new();
    sent.insert(by_data(&posthorn, &large).await?, ("40 MB by DATA".into(), large.clone()));
    sent.insert(by_bdat(&posthorn, &large, 1 << 20, false).await?, ("40 MB by BDAT".into(), large.clone()));
    sent.insert(by_submit(&posthorn, &large).await?, ("40 MB by Submit".into(), large.clone()));
    sent.insert(by_stream(&posthorn, &large, 256 << 10).await?, ("40 MB by SubmitStream".into(), large));
    check(&posthorn, &sent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn but_takes_no_nul_nor_bare_line_ends() -> Result<()> {
    let posthorn = Posthorn::start().await?;
    for content in [
        &b"Subject: nul\r\n\r\na\0b\r\n"[..],
        b"Subject: nul\0\r\n\r\nbody\r\n",
        b"Subject: bare lf\r\n\r\na\nb\r\n",
        b"Subject: bare cr\r\n\r\na\rb\r\n",
        // Two messages to a server that takes a bare LF for a line's end.
        b"Subject: smuggling\r\n\r\na\n.\nMAIL FROM:<x@y.test>\r\n",
    ] {
        let mut client = open(&posthorn).await?;
        let reply = client.data(content).await?;
        ensure!((500..600).contains(&reply.code), "{}: {reply:?}", content.escape_ascii());
        // The session is whole after it.
        client.expect("NOOP", 250).await?;
        let length = content.len();
        let mut client = open(&posthorn).await?;
        client.send(format!("BDAT {length} LAST\r\n").as_bytes()).await?;
        client.send(content).await?;
        let reply = client.reply().await?;
        ensure!((500..600).contains(&reply.code), "{}: {reply:?}", content.escape_ascii());
    }
    ensure!(posthorn.list(ALICE).await?.is_empty());
    Ok(())
}

fn corpus() -> Result<BTreeMap<String, Vec<u8>>> {
    let mut corpus = BTreeMap::new();
    for entry in Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "eml") {
            let name = path.file_stem().context("a file has a name")?.to_string_lossy().into_owned();
            corpus.insert(name, std::fs::read(&path)?);
        }
    }
    ensure!(corpus.len() > 50, "where is the corpus? {} messages", corpus.len());
    Ok(corpus)
}

/// Programs, unlike other servers, must say From whom a message is (RFC 6409 §8).
fn has_author(content: &[u8]) -> bool {
    MessageParser::new().parse_headers(content).is_some_and(|message| message.from().is_some())
}

/// What lacks a Date or a Message-ID is given one on submission (RFC 6409 §8.1, §8.2).
fn is_complete(content: &[u8]) -> bool {
    let parsed = MessageParser::new().parse_headers(content);
    parsed.is_some_and(|message| message.date().is_some() && message.message_id().is_some())
}

/// An attachment of 40,000,000 octets as mail clients write it: 55 MB in base64, 57 octets a line of 76 characters.
fn forty_megabytes() -> Vec<u8> {
    let mut message =
        b"From: Carol <carol@elsewhere.test>\r\nSubject: large\r\nDate: Mon, 23 Nov 2026 09:00:00 +0000\r\n\
        Message-ID: <large@elsewhere.test>\r\nContent-Type: application/octet-stream\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n"
            .to_vec();
    // Not the same line again and again: a piece that is lost or comes twice must show. Digits are base64, too.
    for number in 0..40_000_000_u32.div_ceil(57) {
        message.extend_from_slice(format!("{number:0>76}\r\n").as_bytes());
    }
    message
}

/// A transaction that waits for the content.
async fn open(posthorn: &Posthorn) -> Result<SmtpClient> {
    let (mut client, _) = SmtpClient::connect(posthorn.smtp()).await?;
    client.expect("EHLO client.test", 250).await?;
    client.expect(&format!("MAIL FROM:<{CAROL}> BODY=8BITMIME"), 250).await?;
    client.expect(&format!("RCPT TO:<{ALICE}>"), 250).await?;
    Ok(client)
}

async fn by_data(posthorn: &Posthorn, content: &[u8]) -> Result<String> {
    queued_as(&open(posthorn).await?.data(content).await?)
}

/// All chunks in one go, their replies after them (RFC 3030 with PIPELINING); `binary` for BODY=BINARYMIME.
async fn by_bdat(posthorn: &Posthorn, content: &[u8], chunk: usize, binary: bool) -> Result<String> {
    let mut client = open(posthorn).await?;
    if binary {
        client.expect("RSET", 250).await?;
        client.expect(&format!("MAIL FROM:<{CAROL}> BODY=BINARYMIME"), 250).await?;
        client.expect(&format!("RCPT TO:<{ALICE}>"), 250).await?;
    }
    let chunks: Vec<_> = content.chunks(chunk).collect();
    for piece in &chunks {
        let mut wire = format!("BDAT {}\r\n", piece.len()).into_bytes();
        wire.extend_from_slice(piece);
        client.send(&wire).await?;
        let reply = client.reply().await?;
        ensure!(reply.code == 250, "after a chunk: {reply:?}");
    }
    queued_as(&client.command("BDAT 0 LAST").await?)
}

fn envelope(content: &[u8]) -> Envelope {
    Envelope {
        sender: CAROL.into(),
        recipients: vec![Recipient { address: ALICE.into(), ..Default::default() }],
        body: if content.is_ascii() { Body::SevenBit } else { Body::EightBitMime }.into(),
        ..Default::default()
    }
}

async fn by_submit(posthorn: &Posthorn, content: &[u8]) -> Result<String> {
    let mut client = SubmissionServiceClient::connect(posthorn.url(7001)).await?;
    let request = SubmitRequest {
        envelope: Some(envelope(content)),
        content: Some(Content::Raw(content.to_vec().into())),
        ..Default::default()
    };
    Ok(client.submit(request).await?.into_inner().message_id)
}

async fn by_stream(posthorn: &Posthorn, content: &[u8], chunk: usize) -> Result<String> {
    use submit_stream_request::Part;
    let start = SubmitStreamStart { envelope: Some(envelope(content)), ..Default::default() };
    let chunks = content.chunks(chunk).map(|chunk| Part::Chunk(chunk.to_vec().into()));
    let parts: Vec<_> = std::iter::once(Part::Start(start))
        .chain(chunks)
        .map(|part| SubmitStreamRequest { part: Some(part) })
        .collect();
    let mut client = SubmissionServiceClient::connect(posthorn.url(7001)).await?;
    Ok(client.submit_stream(tokio_stream::iter(parts)).await?.into_inner().message_id)
}

/// Each message came once, whole, with the trace headers on top and no others.
async fn check(posthorn: &Posthorn, sent: &Sent) -> Result<()> {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for mail in posthorn.wait_for_mail(ALICE, sent.len()).await? {
        let Some((name, content)) = sent.get(&mail.summary.message_id) else { continue };
        seen += 1;
        ensure!(mail.summary.size == mail.raw.len() as u64, "{name}: the size is {}", mail.summary.size);
        let above = match headers_above(&mail.raw, content) {
            Ok(above) => above,
            Err(error) => {
                wrong.push(format!("{name}: {error:#}"));
                continue;
            }
        };
        let names: Vec<_> = above.iter().map(|(name, _)| name.as_str()).collect();
        if names != TRACE {
            wrong.push(format!("{name}: the headers on top are {names:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{} messages differ:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(seen == sent.len(), "of {} messages {seen} came", sent.len());
    Ok(())
}
