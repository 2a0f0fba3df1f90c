//! A message comes from the queue, is listed, and is read back as it was.

use crate::world::World;
use posthorn_api::mailbox::v1 as api;

const MAIL: &str = "From: Bob <bob@example.net>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
                    Message-ID: <1@example.net>\r\n\r\nHello\r\n";

fn get(uid: u32, part: api::Part, offset: u64, limit: u64) -> api::GetMessageRequest {
    let mailbox = "alice@example.test".into();
    api::GetMessageRequest { mailbox, folder: "inbox".into(), uid, part: part.into(), offset, limit }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_message_is_listed_and_read() {
    let mut world = World::start().await;
    let alice = world.account("alice@example.test", 0);
    let item = world.deliver(alice, MAIL).await;

    let listed = world.list("alice@example.test", "").await;
    assert_eq!(listed.len(), 1);
    let message = &listed[0];
    let head = format!("Return-Path: <sender@example.net>\r\nDelivered-To: {alice}@example.test\r\n");
    assert_eq!(
        (message.folder.as_str(), message.uid, message.size),
        ("INBOX", 1, (head.len() + MAIL.len()) as u64)
    );
    assert_eq!((message.subject.as_str(), message.from.as_str()), ("Grüße", "Bob <bob@example.net>"));
    assert_eq!(message.header_message_id, "<1@example.net>");
    assert_eq!(message.message_id, uuid::Uuid::from_slice(&item.message_id).unwrap().to_string());

    let whole = head.clone() + MAIL;
    assert_eq!(world.read(get(1, api::Part::Raw, 0, 0)).await.unwrap(), whole.as_bytes());
    assert_eq!(world.read(get(1, api::Part::Raw, 8, 5)).await.unwrap(), &whole.as_bytes()[8..13]);
    let at = head.len() as u64 - 2;
    assert_eq!(world.read(get(1, api::Part::Raw, at, 8)).await.unwrap(), b"\r\nFrom: ");
    assert_eq!(world.read(get(1, api::Part::Raw, 1 << 40, 8)).await.unwrap(), b"");
    let headers = world.read(get(1, api::Part::Headers, 0, 0)).await.unwrap();
    assert_eq!(headers, &whole.as_bytes()[..whole.len() - "Hello\r\n".len()]);
    assert_eq!(world.read(get(1, api::Part::Summary, 0, 0)).await.unwrap(), b"");
    assert_eq!(world.read(get(2, api::Part::Raw, 0, 0)).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(
        world.read(get(1, api::Part::Unspecified, 0, 0)).await.unwrap_err().code(),
        tonic::Code::InvalidArgument
    );

    let folders = world.folders("alice@example.test").await;
    let inbox = &folders["INBOX"];
    assert_eq!((inbox.messages, inbox.unseen, inbox.uid_next, inbox.size), (1, 1, 2, whole.len() as u64));
    assert_eq!(folders.len(), 6);
    assert_eq!(folders["Trash"].special_use, "\\Trash");
    world.service.stop().await;
}
