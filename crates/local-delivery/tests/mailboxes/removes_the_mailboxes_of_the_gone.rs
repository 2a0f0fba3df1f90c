//! The mailbox of an account that the directory does not know any more is removed after a grace, and no other.

use std::time::Duration;

use posthorn_api::mailbox::v1 as api;
use posthorn_testkit::wait;
use uuid::Uuid;

use crate::world::{ALICE, LIMIT, Mood, World, item, recipient};

const BOB: &str = "bob@example.test";
/// All that there is of mailboxes.
const ROWS: &str = "SELECT (SELECT count(*) FROM mailbox.account) + (SELECT count(*) FROM mailbox.folder)
    + (SELECT count(*) FROM mailbox.message) + (SELECT count(*) FROM mailbox.expunged)";
const GONE: &str = "SELECT count(*) FROM mailbox.account WHERE gone_since IS NOT NULL";
const CONTENTS: &str = "SELECT count(*) FROM content.chunk";

async fn world(accounts_grace: Duration) -> World {
    World::start_with(|config| {
        config.collect.every = Duration::from_millis(20);
        config.collect.grace = Duration::from_millis(200);
        config.mailbox.append_timeout = Duration::from_millis(100);
        config.collect.batch = 3;
        config.collect.accounts_every = Duration::from_millis(20);
        config.collect.accounts_grace = accounts_grace;
    })
    .await
}

async fn until(world: &World, what: &str, sql: &'static str, wanted: i64) {
    wait::until(what, LIMIT, async || (world.count(sql).await == wanted).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_mailbox_goes_and_nothing_of_others() {
    let mut world = world(Duration::from_millis(300)).await;
    let (alice, bob) = (world.account(ALICE, 0), world.account(BOB, 0));
    let shared = world.content("Subject: shared\r\n\r\n").await;
    world.queue.work(vec![item(shared, 19, vec![recipient(0, alice), recipient(1, bob)])]).await;
    for n in 0..10 {
        world.deliver(alice, &format!("Subject: {n}\r\n\r\n")).await;
    }
    let uids = (2..=6).collect();
    let expunge = api::ExpungeMessagesRequest { mailbox: ALICE.into(), folder: String::new(), uids };
    world.mailbox.expunge_messages(expunge).await.unwrap();
    let before = world.folders(BOB).await;
    world.delete_account(ALICE);
    until(&world, "the mailbox to be removed", "SELECT count(*) FROM mailbox.account", 1).await;
    // Bob, his folders, his message.
    until(&world, "all of it to be removed", ROWS, 1 + before.len() as i64 + 1).await;
    until(&world, "its contents to be collected", CONTENTS, 1).await;
    assert_eq!(world.list(BOB, "").await[0].subject, "shared");
    assert_eq!(world.folders(BOB).await["INBOX"].messages, before["INBOX"].messages);
    assert_eq!(world.count(GONE).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_before_the_grace_and_what_comes_back_stays() {
    let mut world = world(Duration::from_secs(3600)).await;
    let alice = world.account(ALICE, 0);
    world.deliver(alice, "Subject: kept\r\n\r\n").await;
    world.delete_account(ALICE);
    until(&world, "the account to be noted as gone", GONE, 1).await;
    world.until_asked(3).await;
    assert_eq!(world.count("SELECT count(*) FROM mailbox.message").await, 1);
    world.restore_account(ALICE, alice);
    until(&world, "the account to be noted as back", GONE, 0).await;
    assert_eq!(world.list(ALICE, "").await[0].subject, "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_concluded_from_no_answer_or_half_of_one() {
    let mut world = world(Duration::from_millis(1)).await;
    let alice = world.account(ALICE, 0);
    world.deliver(alice, "Subject: kept\r\n\r\n").await;
    for mood in [Mood::Away, Mood::Partial] {
        world.router_is(mood);
        world.until_asked(2).await;
        let id = world.delete_account(ALICE);
        world.until_asked(3).await;
        assert_eq!(world.count(GONE).await, 0, "{mood:?}");
        world.restore_account(ALICE, id);
    }
    world.router_is(Mood::Good);
    world.until_asked(2).await;
    assert_eq!(world.list(ALICE, "").await[0].subject, "kept");
    world.delete_account(ALICE);
    until(&world, "the mailbox to be removed", ROWS, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_while_mail_comes_is_right_in_between() {
    let mut world = world(Duration::from_millis(1)).await;
    // Of no account: each message finds the mailbox as it is just then.
    let nobody = Uuid::now_v7();
    for n in 0..30 {
        world.deliver(nobody, &format!("Subject: {n}\r\n\r\n")).await;
        let wrong = "SELECT count(*) FROM mailbox.account a
            WHERE (messages, used_bytes) <> (
                SELECT count(*), coalesce(sum(size), 0) FROM mailbox.message m WHERE m.account_id = a.account_id)
            OR (messages, used_bytes) <> (
                SELECT sum(messages), sum(size) FROM mailbox.folder f WHERE f.account_id = a.account_id)";
        assert_eq!(world.count(wrong).await, 0);
    }
    until(&world, "all to be removed", ROWS, 0).await;
    until(&world, "the contents to be collected", CONTENTS, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_opens_nothing_and_its_successor_finds_nothing() {
    let mut world = World::start().await;
    let alice = world.account(ALICE, 0);
    world.deliver(alice, "Subject: secret\r\n\r\n").await;
    assert_eq!(world.list(ALICE, "").await.len(), 1);
    world.delete_account(ALICE);
    let list = api::ListFoldersRequest { mailbox: ALICE.into() };
    let refused = world.mailbox.list_folders(list).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    world.account(ALICE, 0);
    assert_eq!(world.list(ALICE, "").await.len(), 0);
}
