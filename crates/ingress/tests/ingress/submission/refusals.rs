//! What is refused to programs, and in which words.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use anyhow::Result;
use posthorn_api::mail::v1::{Envelope, Notify};
use posthorn_api::submission::v1 as wire;
use posthorn_api::submission::v1::submit_request::Content;
use posthorn_api::submission::v1::submit_stream_request::Part;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use super::{Client, client, envelope, mailbox, raw};
use crate::queue::Mood;
use crate::world::World;

/// A client for whom nothing is relayed without a key.
async fn stranger(world: &World) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", world.grpc))
        .unwrap()
        .local_address(Some(Ipv4Addr::new(127, 0, 1, 1).into()));
    Client::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn what_is_wrong_is_named() -> Result<()> {
    let world = World::with(&[("limits.message_size", "1KiB"), ("limits.recipients", "2")]).await;
    let mut client = client(&world).await;
    let with = |change: fn(&mut wire::SubmitRequest)| {
        let mut request = raw("From: bob@example.net\r\n\r\n");
        change(&mut request);
        request
    };
    for (request, code, text) in [
        (with(|r| r.content = None), Code::InvalidArgument, "content: "),
        (with(|r| r.envelope = None), Code::InvalidArgument, "envelope.recipients: "),
        (with(|r| r.envelope = envelope("nobody", &["a@b"])), Code::InvalidArgument, "envelope.sender: "),
        (
            with(|r| r.envelope = envelope("", &["a@b", "c"])),
            Code::InvalidArgument,
            "envelope.recipients[1].address: ",
        ),
        (
            with(|r| r.envelope = envelope("", &["a@b", "c@d", "e@f"])),
            Code::InvalidArgument,
            "envelope.recipients: ",
        ),
        (with(|r| r.idempotency_key = "k".repeat(256)), Code::InvalidArgument, "idempotency_key: "),
        (raw("Subject: no from\r\n\r\n"), Code::InvalidArgument, "raw: "),
        (raw("From: a@b\r\n\r\nbare\rCR"), Code::InvalidArgument, "raw: "),
        (raw("From: a@b\r\n\r\nNUL\0"), Code::InvalidArgument, "raw: "),
        (
            raw(["From: a@b\r\n\r\n", &"x".repeat(1024)].concat()),
            Code::ResourceExhausted,
            "the message is larger",
        ),
        (
            with(|r| r.envelope = envelope("", &["unknown@example.test", "later@example.test"])),
            Code::FailedPrecondition,
            "no recipient was accepted: unknown@example.test: 550 5.1.1 No such user here; later@example.test: 451",
        ),
    ] {
        let refused = client.submit(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.message().starts_with(text), "{text}, not {}", refused.message());
    }
    assert!(world.queue.messages().is_empty());
    Ok(())
}

/// What the queue could not store, or would have to guess.
#[tokio::test]
async fn what_an_envelope_or_a_key_cannot_say_is_named() -> Result<()> {
    type Change = fn(&mut Envelope, &mut String);
    let world = World::start().await;
    let mut client = client(&world).await;
    let changes: [(Change, &str); 7] = [
        (|_, key| key.push('\0'), "idempotency_key: "),
        (|_, key| key.push('\n'), "idempotency_key: "),
        (|envelope, _| envelope.envelope_id = "id\0".into(), "envelope.envelope_id: "),
        (
            |envelope, _| envelope.recipients[0].original_recipient = "rfc822;a\0".into(),
            "envelope.recipients[0].original_recipient: ",
        ),
        (|envelope, _| envelope.ret = 99, "envelope.ret: "),
        (|envelope, _| envelope.body = 99, "envelope.body: "),
        (
            |envelope, _| {
                let notify = Notify { never: true, success: true, ..Default::default() };
                envelope.recipients[0].notify = Some(notify);
            },
            "envelope.recipients[0].notify: ",
        ),
    ];
    for (change, text) in changes {
        let mut request = raw("From: bob@example.net\r\n\r\n");
        change(request.envelope.as_mut().unwrap(), &mut request.idempotency_key);
        let start = wire::SubmitStreamStart {
            envelope: request.envelope.clone(),
            idempotency_key: request.idempotency_key.clone(),
        };
        let parts = [wire::SubmitStreamRequest { part: Some(Part::Start(start)) }];
        for refused in [
            client.submit(request).await.unwrap_err(),
            client.submit_stream(tokio_stream::iter(parts)).await.unwrap_err(),
        ] {
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
            assert!(refused.message().starts_with(text), "{text}, not {}", refused.message());
        }
    }
    assert!(world.queue.messages().is_empty());
    Ok(())
}

#[tokio::test]
async fn trouble_behind_is_told_as_such() -> Result<()> {
    let world = World::start().await;
    let mut client = client(&world).await;
    let request = || raw("From: bob@example.net\r\n\r\n");
    world.queue.set(Mood::Away);
    assert_eq!(client.submit(request()).await.unwrap_err().code(), Code::Unavailable);
    world.queue.set(Mood::Full);
    assert_eq!(client.submit(request()).await.unwrap_err().code(), Code::ResourceExhausted);
    world.queue.set(Mood::Willing);
    world.router.away.store(true, Ordering::SeqCst);
    assert_eq!(client.submit(request()).await.unwrap_err().code(), Code::Unavailable);
    Ok(())
}

#[tokio::test]
async fn strangers_need_a_key() -> Result<()> {
    let world = World::start().await;
    let mut client = stranger(&world).await;
    let with_key = |key: &str| {
        let mut request = Request::new(raw("From: bob@example.net\r\n\r\n"));
        request.metadata_mut().insert("authorization", key.parse().unwrap());
        request
    };
    let refused = client.submit(raw("From: bob@example.net\r\n\r\n")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    for (key, code) in [
        ("Bearer bad", Code::Unauthenticated),
        ("Basic good", Code::Unauthenticated),
        ("Bearer other", Code::PermissionDenied),
    ] {
        assert_eq!(client.submit(with_key(key)).await.unwrap_err().code(), code, "{key}");
    }
    client.submit(with_key("Bearer good")).await?;
    let origin = world.queue.only().start.origin.unwrap();
    assert_eq!((origin.authenticated_as.as_str(), origin.tenant_id.as_str()), ("key-1", "tenant-1"));
    Ok(())
}

#[tokio::test]
async fn a_key_speaks_for_its_own_tenant_and_for_strangers() -> Result<()> {
    let world = World::start().await;
    let mut client = stranger(&world).await;
    let with_key = |message: wire::SubmitRequest| {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", "Bearer good".parse().unwrap());
        request
    };
    let from = |sender: &str| {
        let mut request = raw("From: bob@example.net\r\n\r\n");
        request.envelope.as_mut().unwrap().sender = sender.into();
        request
    };
    for (sender, allowed) in [
        ("", true),
        ("bob@example.net", true),
        ("nobody-there@tenant-1.test", true),
        ("alice@example.test", false),
        ("unknown-there@example.test", false),
    ] {
        let answer = client.submit(with_key(from(sender))).await;
        if allowed {
            answer.map_err(|refused| anyhow::anyhow!("{sender}: {refused}"))?;
        } else {
            let refused = answer.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{sender}");
            assert!(refused.message().starts_with("envelope.sender:"), "{}", refused.message());
        }
    }
    let message = wire::StructuredMessage {
        from: Some(mailbox("alice@example.test")),
        text: "x".into(),
        ..Default::default()
    };
    let mut disguised = from("bob@example.net");
    disguised.content = Some(Content::Message(message));
    let refused = client.submit(with_key(disguised)).await.unwrap_err();
    assert!(refused.message().starts_with("message.from:"), "{}", refused.message());
    // Without a key, from a trusted network, nothing is held against a sender.
    let mut trusted = Client::connect(format!("http://{}", world.grpc)).await?;
    trusted.submit(from("alice@example.test")).await?;
    Ok(())
}
