//! The collector deletes what nothing refers to, and nothing else.

use std::time::Duration;

use posthorn_api::mailbox::v1 as api;
use posthorn_mail::MessageId;
use posthorn_testkit::wait;
use uuid::Uuid;

use crate::world::{ALICE, LIMIT, World, item, recipient, selection};

const CONTENTS: &str = "SELECT count(*) FROM content.chunk";

async fn eager() -> World {
    World::start_with(|config| {
        config.collect.every = Duration::from_millis(20);
        config.collect.grace = Duration::from_millis(200);
        config.mailbox.append_timeout = Duration::from_millis(100);
        config.collect.batch = 3;
    })
    .await
}

async fn until_contents(world: &World, left: i64) {
    wait::until("contents to be collected", LIMIT, async || {
        (world.count(CONTENTS).await == left).then_some(())
    })
    .await;
}

async fn release(world: &World, id: MessageId) {
    let mut connection = world.pool.acquire().await.unwrap();
    posthorn_content::release(&mut connection, &[id]).await.unwrap();
}

/// Waits until the collector has looked at all that was released before.
async fn until_looked(world: &World) {
    let marker = world.content("marker").await;
    release(world, marker).await;
    let left = "SELECT count(*) FROM content.released r WHERE released_at <= now() - interval '200 ms'";
    wait::until("the collector", LIMIT, async || {
        let mut connection = world.pool.acquire().await.unwrap();
        let gone = posthorn_content::read_whole(&mut connection, marker).await.unwrap().is_none();
        (gone && world.count(left).await == 0).then_some(())
    })
    .await;
}

fn expunge(uid: u32) -> api::ExpungeMessagesRequest {
    api::ExpungeMessagesRequest { mailbox: ALICE.into(), folder: String::new(), uids: vec![uid] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_lives_as_long_as_its_last_reference() {
    let mut world = eager().await;
    let alice = world.account(ALICE, 0);
    let id = world.content("Subject: x\r\n\r\n").await;
    let other = Uuid::now_v7();
    world.queue.work(vec![item(id, 14, vec![recipient(0, alice), recipient(1, other)])]).await;
    let copy = api::CopyMessagesRequest {
        mailbox: ALICE.into(),
        selection: selection("", &[1]),
        to_folder: "Sent".into(),
    };
    world.mailbox.copy_messages(copy).await.unwrap();
    world.mailbox.expunge_messages(expunge(1)).await.unwrap();
    until_looked(&world).await;
    assert_eq!(world.count(CONTENTS).await, 1, "a copy and another mailbox refer to it");

    sqlx::query("DELETE FROM mailbox.message WHERE account_id = $1")
        .bind(other)
        .execute(&world.pool)
        .await
        .unwrap();
    release(&world, id).await;
    until_looked(&world).await;
    assert_eq!(world.list(ALICE, "Sent").await[0].subject, "x", "the copy refers to it");

    let last = api::DeleteFolderRequest { mailbox: ALICE.into(), folder: "Sent".into() };
    world.mailbox.delete_folder(last).await.unwrap();
    until_contents(&world, 0).await;
    assert_eq!(world.count("SELECT count(*) FROM content.released").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_spool_holds_stays() {
    let mut world = eager().await;
    let alice = world.account(ALICE, 0);
    let item = world.deliver(alice, "Subject: held\r\n\r\n").await;
    world.queue.hold(item.message_id.clone());
    world.mailbox.expunge_messages(expunge(1)).await.unwrap();
    until_looked(&world).await;
    assert_eq!(world.count(CONTENTS).await, 1);
    world.queue.let_go();
    until_contents(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collecting_and_delivering_at_once_loses_nothing() {
    let mut world = eager().await;
    let alice = world.account(ALICE, 0);
    // Every message is delivered, copied, expunged, while the collector is at work.
    for n in 1..=30 {
        world.deliver(alice, &format!("Subject: {n}\r\n\r\n")).await;
        let copy = api::CopyMessagesRequest {
            mailbox: ALICE.into(),
            selection: selection("", &[n]),
            to_folder: "Archive".into(),
        };
        world.mailbox.copy_messages(copy).await.unwrap();
        world.mailbox.expunge_messages(expunge(n)).await.unwrap();
    }
    until_looked(&world).await;
    let subjects: Vec<_> = world.list(ALICE, "Archive").await.into_iter().map(|m| m.subject).collect();
    assert_eq!(subjects, (1..=30).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_bookkeeping_is_forgotten_and_watchers_are_told() {
    let mut world = World::start_with(|config| {
        config.collect.every = Duration::from_millis(20);
        config.collect.remember_expunges_for = Duration::from_millis(1);
        config.collect.remember_deliveries_for = Duration::from_millis(1);
    })
    .await;
    let alice = world.account(ALICE, 0);
    world.deliver(alice, "\r\n").await;
    world.mailbox.expunge_messages(expunge(1)).await.unwrap();
    let left = "SELECT (SELECT count(*) FROM mailbox.expunged) + (SELECT count(*) FROM mailbox.delivery)";
    wait::until("rows to be forgotten", LIMIT, async || (world.count(left).await == 0).then_some(())).await;
    let watch =
        |after| api::WatchRequest { mailbox: ALICE.into(), folder: String::new(), after_modseq: Some(after) };
    assert_eq!(world.mailbox.watch(watch(1)).await.unwrap_err().code(), tonic::Code::OutOfRange);
    for fine in [0, 2] {
        world.mailbox.watch(watch(fine)).await.unwrap();
    }
}
