//! What the queue has not in its ledger yet is delivered up to the commit, which waits for the queue's word.

use bytes::Bytes;
use posthorn_api::mailbox::v1::{self as api, watch_response::Change};
use posthorn_api::work::v1::{Batch, Item, ItemRecipient, Kept, work_response};
use posthorn_mail::MessageId;
use posthorn_testkit::wait;
use uuid::Uuid;

use crate::world::{ALICE, Heard, LIMIT, World, batch, item, recipient, statuses};

const CONTENT: &str = "Subject: early\r\n\r\nText\r\n";
const PREPARED: &str = "SELECT count(*) FROM pg_stat_activity
     WHERE state = 'idle in transaction' AND datname = current_database()";
const STORED: &str = "SELECT count(*) FROM mailbox.message";

/// A message whose content is not in the store yet.
fn early(account: Uuid) -> (MessageId, Batch) {
    let id = MessageId::generate();
    let header = Bytes::from_static(b"Subject: early\r\n\r\n");
    let items = vec![Item { header, ..item(id, CONTENT.len(), vec![recipient(0, account)]) }];
    (id, Batch { early: true, ..batch(items) })
}

impl World {
    async fn store(&self, id: MessageId) {
        let mut connection = self.pool.acquire().await.unwrap();
        posthorn_content::insert(&mut connection, &[(id, Bytes::from_static(CONTENT.as_bytes()))])
            .await
            .unwrap();
    }

    async fn keep(&self, batch: &Batch, is_kept: bool) {
        let kept = Kept { token: batch.token.clone(), is_kept };
        self.queue.answer(work_response::Response::Kept(kept)).await;
    }

    /// Waits until the delivery lacks nothing but the word.
    async fn until_prepared(&self) {
        wait::until("the delivery to wait for the word", LIMIT, async || {
            (self.count(PREPARED).await == 1).then_some(())
        })
        .await;
    }

    async fn outcomes(&mut self, of: &Item) -> Vec<String> {
        let Heard::Report(report) = self.queue.heard().await else { panic!("no report") };
        let [reported] = &report.items[..] else { panic!("{report:?}") };
        assert_eq!(reported.message_id, of.message_id);
        statuses(reported.report.clone().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_in_the_mailbox_once_it_is_kept_and_who_watches_sees_it() {
    let mut world = World::start().await;
    let alice = world.account(ALICE, 0);
    world.deliver(alice, "\r\n").await;
    let request = api::WatchRequest { mailbox: ALICE.into(), ..Default::default() };
    let mut watch = world.mailbox.watch(request).await.unwrap().into_inner();
    assert!(matches!(watch.message().await.unwrap().unwrap().change, Some(Change::Started(_))));
    let (id, batch) = early(alice);
    world.queue.send(batch.clone()).await;
    world.until_prepared().await;
    assert_eq!(world.count(STORED).await, 1);
    world.store(id).await;
    world.keep(&batch, true).await;
    assert_eq!(world.outcomes(&batch.items[0]).await, ["250 2.0.0 delivered to the mailbox"]);
    assert_eq!(world.count(STORED).await, 2);
    match watch.message().await.unwrap().unwrap().change {
        Some(Change::Message(message)) => assert_eq!((message.subject.as_str(), message.uid), ("early", 2)),
        other => panic!("{other:?}"),
    }
}

/// One message for several mailboxes, one of them new the first time: then it is delivered when the word has come.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_in_all_its_mailboxes_once_it_is_kept() {
    let mut world = World::start().await;
    let accounts: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
    for round in 1..=2 {
        let (id, mut batch) = early(accounts[0]);
        let mut recipients: Vec<_> =
            (0..).zip(&accounts).map(|(no, account)| recipient(no, *account)).collect();
        recipients[1].local.as_mut().unwrap().folder = "Junk".into();
        recipients.push(ItemRecipient { address: "list@example.test".into(), ..recipient(3, accounts[1]) });
        batch.items[0].recipients = recipients;
        world.queue.send(batch.clone()).await;
        if round == 2 {
            world.until_prepared().await;
        }
        assert_eq!(world.count(STORED).await, 4 * (round - 1));
        world.store(id).await;
        world.keep(&batch, true).await;
        assert_eq!(world.outcomes(&batch.items[0]).await, ["250 2.0.0 delivered to the mailbox"; 4]);
        assert_eq!(world.count(STORED).await, 4 * round);
    }
    let wrong = "SELECT count(*) FROM mailbox.message m JOIN mailbox.folder f USING (account_id, folder_id)
         JOIN mailbox.account a USING (account_id)
         WHERE uid <> modseq AND (f.uid_next, f.messages, a.messages) = (3, 2, 2)";
    assert_eq!(world.count(wrong).await, 0);
    assert_eq!(
        world.count("SELECT count(*) FROM mailbox.folder WHERE uid_next = 3 AND name = 'Junk'").await,
        1
    );
    assert_eq!(world.count("SELECT count(*) FROM mailbox.account WHERE highest_modseq = 4").await, 1);
}

/// R4, also when the word comes and the outcome is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_is_there_once() {
    let mut world = World::start().await;
    let alice = world.account(ALICE, 0);
    // The first has no mailbox yet, the second has, the third is the second again.
    let (first, second) = (early(alice), early(alice));
    let again = Batch { early: true, ..batch(second.1.items.clone()) };
    for (id, batch) in [(Some(first.0), first.1), (Some(second.0), second.1), (None, again)] {
        world.queue.send(batch.clone()).await;
        if let Some(id) = id {
            world.store(id).await;
        }
        world.keep(&batch, true).await;
        assert_eq!(world.outcomes(&batch.items[0]).await, ["250 2.0.0 delivered to the mailbox"]);
    }
    assert_eq!(world.count(STORED).await, 2);
}

/// Nothing comes of it, and the mailbox is free for others.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_word_nothing_is_delivered() {
    let mut world = World::start().await;
    let alice = world.account(ALICE, 0);
    world.deliver(alice, "\r\n").await;
    for word in ["no", "none", "the stream breaks"] {
        let (_, batch) = early(alice);
        world.queue.send(batch.clone()).await;
        world.until_prepared().await;
        match word {
            "no" => world.keep(&batch, false).await,
            "none" => {}
            _ => world.queue.hang_up(),
        }
        loop {
            match world.queue.heard().await {
                Heard::Release(back) => {
                    break assert_eq!(back.items[0].message_id, batch.items[0].message_id);
                }
                Heard::Extend(_) => {}
                Heard::Report(report) => panic!("{word}: {report:?}"),
            }
        }
        world.deliver(alice, "\r\n").await;
    }
    assert_eq!(world.count(STORED).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_are_delivered_meanwhile() {
    let mut world = World::start().await;
    let (alice, bob) = (world.account(ALICE, 0), Uuid::now_v7());
    world.deliver(alice, "\r\n").await;
    world.deliver(bob, "\r\n").await;
    // On a busy machine the wait may be over before bob has it, though nothing held that up.
    for _ in 0..20 {
        let (_, batch) = early(alice);
        world.queue.send(batch.clone()).await;
        world.until_prepared().await;
        world.deliver(bob, "\r\n").await;
        if world.count(PREPARED).await == 1 {
            return world.keep(&batch, false).await;
        }
    }
    panic!("bob's mailbox waits for the word about alice's");
}
