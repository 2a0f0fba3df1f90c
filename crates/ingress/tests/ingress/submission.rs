//! Messages of programs, by gRPC.

mod refusals;

use std::sync::atomic::Ordering;

use anyhow::Result;
use mail_parser::MessageParser;
use posthorn_api::mail::v1::{Body, Envelope, Recipient};
use posthorn_api::submission::v1 as wire;
use posthorn_api::submission::v1::submission_service_client::SubmissionServiceClient;
use posthorn_api::submission::v1::submit_request::Content;
use posthorn_api::submission::v1::submit_stream_request::Part;
use posthorn_mail::MessageId;
use posthorn_testkit::wait::until;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;

use crate::queue::Mood;
use crate::world::{PATIENCE, World, check};

type Client = SubmissionServiceClient<Channel>;

async fn client(world: &World) -> Client {
    Client::connect(format!("http://{}", world.grpc)).await.unwrap()
}

fn envelope(sender: &str, recipients: &[&str]) -> Option<Envelope> {
    let recipient = |address: &&str| Recipient { address: (*address).to_owned(), ..Default::default() };
    Some(Envelope {
        sender: sender.into(),
        recipients: recipients.iter().map(recipient).collect(),
        ..Default::default()
    })
}

fn raw(content: impl Into<Vec<u8>>) -> wire::SubmitRequest {
    wire::SubmitRequest {
        envelope: envelope("bob@example.net", &["alice@example.test"]),
        content: Some(Content::Raw(content.into().into())),
        idempotency_key: String::new(),
    }
}

fn mailbox(address: &str) -> wire::Mailbox {
    wire::Mailbox { address: address.into(), name: String::new() }
}

fn structured() -> wire::SubmitRequest {
    wire::SubmitRequest {
        envelope: None,
        content: Some(Content::Message(wire::StructuredMessage {
            from: Some(mailbox("bob@example.net")),
            to: vec![mailbox("alice@example.test"), mailbox("unknown@example.test")],
            cc: vec![mailbox("carol@example.org")],
            bcc: vec![mailbox("dave@example.test"), mailbox("alice@example.test")],
            subject: "Grüße".into(),
            text: "Hi".into(),
            ..Default::default()
        })),
        idempotency_key: String::new(),
    }
}

#[tokio::test]
async fn a_raw_message_is_completed_and_kept() -> Result<()> {
    let world = World::start().await;
    let answer =
        client(&world).await.submit(raw("From: bob@example.net\nSubject: a\n\nbödy\n")).await?.into_inner();
    let message = world.queue.only();
    assert_eq!(answer.message_id, MessageId::try_from(&message.start.message_id[..])?.to_string());
    assert!(answer.accepted_at.is_some());
    let [alice] = &answer.recipients[..] else { panic!("{answer:?}") };
    assert!(alice.accepted && alice.address == "alice@example.test");
    let text = String::from_utf8(message.content)?;
    let own = format!("Message-ID: <{}@mx.example.test>\r\n\r\nbödy\r\n", answer.message_id);
    assert!(text.starts_with("Received: from [127.0.0.1]\r\n\tby mx.example.test with GRPC id "), "{text}");
    assert!(
        text.contains("\r\nFrom: bob@example.net\r\nSubject: a\r\nDate: ") && text.ends_with(&own),
        "{text}"
    );
    assert_eq!(message.start.envelope.unwrap().body(), Body::EightBitMime);
    assert_eq!(message.start.origin.unwrap().protocol, "GRPC");
    Ok(())
}

#[tokio::test]
async fn a_structured_message_names_its_own_recipients() -> Result<()> {
    let world = World::start().await;
    let answer = client(&world).await.submit(structured()).await?.into_inner();
    let accepted: Vec<_> = answer
        .recipients
        .iter()
        .map(|r| (r.address.as_str(), r.accepted, r.status.as_ref().unwrap().code))
        .collect();
    assert_eq!(
        accepted,
        [
            ("alice@example.test", true, 250),
            ("unknown@example.test", false, 550),
            ("carol@example.org", true, 250),
            ("dave@example.test", true, 250),
            ("alice@example.test", true, 250),
        ]
    );
    let message = world.queue.only();
    let envelope = message.start.envelope.unwrap();
    assert_eq!(envelope.sender, "bob@example.net");
    let to: Vec<_> = envelope.recipients.iter().map(|r| r.address.as_str()).collect();
    assert_eq!(to, ["alice@example.test", "carol@example.org", "dave@example.test"]);
    let parsed = MessageParser::new().parse(&message.content).unwrap();
    assert_eq!((parsed.subject(), parsed.body_text(0).as_deref()), (Some("Grüße"), Some("Hi\r\n")));
    assert!(parsed.date().is_some() && parsed.message_id().is_some() && parsed.bcc().is_none());
    Ok(())
}

#[tokio::test]
async fn the_same_key_gives_the_same_answer() -> Result<()> {
    let world = World::start().await;
    let mut client = client(&world).await;
    let large = ["From: bob@example.net\r\n\r\n", &"a line\r\n".repeat(100_000)].concat();
    for request in [raw("From: bob@example.net\r\n\r\nx\r\n"), structured(), raw(large)] {
        world.queue.set(Mood::Willing);
        let before = world.queue.messages().len();
        let key = format!("key {before}");
        let request = wire::SubmitRequest { idempotency_key: key.clone(), ..request };
        let first = client.submit(request.clone()).await?.into_inner();
        let second = client.submit(request.clone()).await?.into_inner();
        assert_eq!(first, second);
        assert_eq!(world.queue.messages().len(), before + 1);
        let other =
            wire::SubmitRequest { idempotency_key: key, ..raw("From: bob@example.net\r\n\r\nanother\r\n") };
        assert_eq!(client.submit(other).await.unwrap_err().code(), Code::AlreadyExists);
    }
    Ok(())
}

#[tokio::test]
async fn a_key_gives_the_first_answer_when_the_recipients_are_gone() -> Result<()> {
    let world = World::start().await;
    let mut client = client(&world).await;
    let with_key = |key: &str, body: &str| wire::SubmitRequest {
        idempotency_key: key.into(),
        ..raw(format!("From: bob@example.net\r\n\r\n{body}\r\n"))
    };
    let stream = |key: &str, body: &str| {
        let start = wire::SubmitStreamStart {
            envelope: envelope("", &["alice@example.test"]),
            idempotency_key: key.into(),
        };
        let content = format!("From: bob@example.net\r\n\r\n{body}\r\n");
        let parts = [Part::Start(start), Part::Chunk(content.into())];
        tokio_stream::iter(parts.map(|part| wire::SubmitStreamRequest { part: Some(part) }))
    };
    let first = client.submit(with_key("k1", "x")).await?.into_inner();
    let first_stream = client.submit_stream(stream("k2", "x")).await?.into_inner();
    world.router.deserted.store(true, Ordering::SeqCst);
    assert_eq!(client.submit(with_key("k1", "x")).await?.into_inner(), first);
    assert_eq!(client.submit_stream(stream("k2", "x")).await?.into_inner(), first_stream);
    for (code, refused) in [
        (Code::AlreadyExists, client.submit(with_key("k1", "y")).await.unwrap_err()),
        (Code::AlreadyExists, client.submit_stream(stream("k2", "y")).await.unwrap_err()),
        (Code::FailedPrecondition, client.submit(with_key("k3", "x")).await.unwrap_err()),
        (Code::FailedPrecondition, client.submit(with_key("", "x")).await.unwrap_err()),
        (Code::FailedPrecondition, client.submit_stream(stream("", "x")).await.unwrap_err()),
    ] {
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    world.queue.set(Mood::Away);
    assert_eq!(client.submit(with_key("k1", "x")).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(world.queue.messages().len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_large_message_comes_as_a_stream() -> Result<()> {
    let world = World::start().await;
    let mut client = client(&world).await;
    let line = "A line of a large message.\n";
    let content = format!("From: bob@example.net\n\n{}", line.repeat(400_000));
    let parts = |content: &str| {
        let start = wire::SubmitStreamStart {
            envelope: envelope("", &["alice@example.test"]),
            idempotency_key: "k".into(),
        };
        let chunks = content.as_bytes().chunks(100_001).map(|chunk| Part::Chunk(chunk.to_vec().into()));
        let parts: Vec<_> = std::iter::once(Part::Start(start))
            .chain(chunks)
            .map(|part| wire::SubmitStreamRequest { part: Some(part) })
            .collect();
        tokio_stream::iter(parts)
    };
    let first = client.submit_stream(parts(&content)).await?.into_inner();
    let message = world.queue.only();
    assert!(
        message.streamed && message.content.ends_with(line.repeat(400_000).replace('\n', "\r\n").as_bytes())
    );
    let second = client.submit_stream(parts(&content)).await?.into_inner();
    assert_eq!(first, second);
    let other = client.submit_stream(parts(&content[..content.len() - 9])).await;
    assert_eq!(other.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(world.queue.messages().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_stream_whose_next_part_does_not_come_is_given_up() -> Result<()> {
    for settings in [[("limits.data_timeout", "200ms")], [("limits.session_timeout", "200ms")]] {
        let world = World::with(&settings).await;
        let start = wire::SubmitStreamStart {
            envelope: envelope("", &["alice@example.test"]),
            idempotency_key: String::new(),
        };
        let content = ["From: bob@example.net\r\n\r\n", &"a line\r\n".repeat(100_000)].concat();
        let parts = [Part::Start(start), Part::Chunk(content.into())]
            .map(|part| wire::SubmitStreamRequest { part: Some(part) });
        let parts = tokio_stream::iter(parts).chain(tokio_stream::pending());
        let refused = client(&world).await.submit_stream(parts).await.unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
        // What has gone to the queue already is given up there, too.
        until("the stream to be cut", PATIENCE, async || (world.queue.cut() == 1).then_some(())).await;
        assert!(world.queue.messages().is_empty());
    }
    Ok(())
}

/// R11: what comes in at once is bounded, whoever sends it, and there is room again when it has gone.
#[tokio::test]
async fn messages_that_memory_has_no_room_for_are_put_off() -> Result<()> {
    let settings =
        [("limits.buffered", "64MiB"), ("limits.message_size", "60MiB"), ("handover.inline", "4MiB")];
    let world = World::with(&settings).await;
    let line = format!("{:62}\r\n", "a line");
    let content = |octets: usize| ["From: bob@example.net\r\n\r\n", &line.repeat(octets / 64)].concat();
    // A queue that reads nothing holds the message up.
    world.queue.chunks.forget_permits(1_000_000);
    let mut first = client(&world).await;
    let request = raw(content(57 << 20));
    let first = tokio::spawn(async move { first.submit(request).await });
    until("the call", PATIENCE, async || (world.queue.begun() == 1).then_some(())).await;
    let refused = client(&world).await.submit(raw(content(31 << 20))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(posthorn_api::error::reason(&refused).as_deref(), Some("MEMORY_SPENT"));
    check(&world.send(content(3 << 20).as_bytes()).await?, 452, "4.3.1")?;
    world.queue.chunks.add_permits(1_000_000);
    first.await??;
    client(&world).await.submit(raw(content(31 << 20))).await?;
    check(&world.send(content(3 << 20).as_bytes()).await?, 250, "2.0.0")?;
    Ok(())
}
