//! A mailbox gets a message once (R4), however often and by whomever it is delivered.

use std::collections::HashSet;

use crate::world::{World, batch, item, recipient, with_quota};
use posthorn_api::work::v1::Item;
use uuid::Uuid;

const DELIVERED: &str = "250 2.0.0 delivered to the mailbox";

async fn items(world: &World, accounts: &[Uuid], count: usize) -> Vec<Item> {
    let mut items = Vec::new();
    for n in 0..count {
        items.push(world.item(accounts[n % accounts.len()], "Subject: x\r\n\r\nbody").await);
    }
    items
}

/// Each mailbox has the UIDs 1 to n and counters that agree with its messages.
async fn counters_agree(world: &World) {
    let wrong = "SELECT count(*) FROM mailbox.folder f LEFT JOIN LATERAL (
             SELECT count(*) AS n, coalesce(sum(size), 0) AS bytes, coalesce(max(uid), 0) AS uid,
                    coalesce(max(modseq), 0) AS modseq, count(*) FILTER (WHERE flags & 1 = 0) AS unseen
             FROM mailbox.message m WHERE m.account_id = f.account_id AND m.folder_id = f.folder_id) m ON true
         WHERE (f.messages, f.size, f.uid_next, f.highest_modseq, f.unseen)
               <> (m.n, m.bytes, m.uid + 1, m.modseq, m.unseen) OR m.n <> m.uid";
    assert_eq!(world.count(wrong).await, 0, "folders");
    let wrong = "SELECT count(*) FROM mailbox.account a LEFT JOIN LATERAL (
             SELECT count(*) AS n, coalesce(sum(size), 0) AS bytes, coalesce(max(modseq), 0) AS modseq
             FROM mailbox.message m WHERE m.account_id = a.account_id) m ON true
         WHERE (a.messages, a.used_bytes, a.highest_modseq) <> (m.n, m.bytes, m.modseq)";
    assert_eq!(world.count(wrong).await, 0, "accounts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_for_many_mailboxes_is_delivered() {
    let mut world = World::start().await;
    let accounts: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
    for round in 1..=2 {
        let mut items = items(&world, &accounts, 250).await;
        for item in items.iter_mut().step_by(3) {
            item.recipients[0].local.as_mut().unwrap().folder = "Junk".into();
        }
        let outcomes = world.queue.work(items).await;
        assert_eq!(outcomes, vec![DELIVERED; 250]);
        assert_eq!(world.count("SELECT count(*) FROM mailbox.account").await, 40);
        assert_eq!(world.count("SELECT count(*) FROM mailbox.message").await, 250 * round);
        counters_agree(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_for_a_thousand_mailboxes_is_one_item() {
    let mut world = World::start().await;
    let id = world.content("Subject: all\r\n\r\n").await;
    let mut recipients: Vec<_> =
        (0..1000).map(|n| recipient(n, Uuid::from_u128(u128::from(n).reverse_bits()))).collect();
    for recipient in recipients.iter_mut().step_by(7) {
        recipient.local.as_mut().unwrap().quota_bytes = 1;
    }
    let item = item(id, 16, recipients);
    let wanted = |n| if n % 7 == 0 { "552 5.2.3 the message is larger than the mailbox" } else { DELIVERED };
    let wanted: Vec<&str> = (0..1000).map(wanted).collect();
    for _ in 0..2 {
        // Of each its own, whichever transaction it was in; and the second time nothing more.
        assert_eq!(world.queue.work(vec![item.clone()]).await, wanted);
        assert_eq!(world.count("SELECT count(*) FROM mailbox.message").await, 857);
        counters_agree(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_is_delivered_but_not_again() {
    let mut world = World::start().await;
    let alice = Uuid::now_v7();
    let one = world.item(alice, "Subject: x\r\n\r\n").await;
    // The same thrice in a batch, once written otherwise, then again in another.
    let mut thrice = one.clone();
    thrice.recipients.push(recipient(1, alice));
    let mut capitals = recipient(2, alice);
    capitals.address = capitals.address.to_uppercase();
    thrice.recipients.push(capitals);
    assert_eq!(world.queue.work(vec![thrice]).await, vec![DELIVERED; 3]);
    assert_eq!(world.queue.work(vec![one]).await, vec![DELIVERED; 1]);
    assert_eq!(world.count("SELECT count(*) FROM mailbox.message").await, 1);
    counters_agree(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_with_the_same_items_deliver_each_once() {
    let mut world = World::start().await;
    let (replica, mut other) = world.replica().await;
    let accounts: Vec<Uuid> = (0..7).map(|_| Uuid::now_v7()).collect();
    for round in 0..5 {
        let items = items(&world, &accounts, 60).await;
        let mut backwards = items.clone();
        backwards.reverse();
        let (here, there) = tokio::join!(world.queue.work(items), other.work(backwards));
        assert_eq!((here, there), (vec![DELIVERED.to_owned(); 60], vec![DELIVERED.to_owned(); 60]));
        assert_eq!(world.count("SELECT count(*) FROM mailbox.message").await, 60 * (round + 1));
    }
    counters_agree(&world).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_first_deliveries_to_a_new_mailbox_at_once() {
    let mut world = World::start_with(|config| {
        config.work.credits = 50;
        config.work.writers = 8;
    })
    .await;
    let accounts = [Uuid::now_v7(), Uuid::now_v7()];
    let items = items(&world, &accounts, 50).await;
    let mut open: HashSet<_> = items.iter().map(|item| item.message_id.clone()).collect();
    for item in items {
        world.queue.send(batch(vec![item])).await;
    }
    while !open.is_empty() {
        if let crate::world::Heard::Report(report) = world.queue.heard().await {
            for item in report.items {
                open.remove(&item.message_id);
                assert_eq!(crate::world::statuses(item.report.unwrap()), [DELIVERED]);
            }
        }
    }
    assert_eq!(world.count("SELECT count(*) FROM mailbox.message").await, 50);
    assert_eq!(world.count("SELECT count(*) FROM mailbox.folder").await, 12);
    counters_agree(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_defers_and_takes_the_message_when_there_is_room() {
    let mut world = World::start().await;
    let alice = world.account("alice@example.test", 0);
    let big = world.item(alice, &"x".repeat(600)).await;
    let other = world.item(alice, &"y".repeat(600)).await;
    let huge = world.item(alice, &"z".repeat(2000)).await;
    let batch: Vec<Item> =
        [big, other.clone(), huge].into_iter().map(|item| with_quota(item, 1000)).collect();
    assert_eq!(
        world.queue.work(batch).await,
        [DELIVERED, "452 4.2.2 mailbox full", "552 5.2.3 the message is larger than the mailbox"]
    );
    counters_agree(&world).await;
    assert_eq!(world.queue.work(vec![with_quota(other, 2000)]).await, [DELIVERED]);
    assert_eq!(world.list("alice@example.test", "INBOX").await.len(), 2);
    counters_agree(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_the_store_refuses_fails_no_other() {
    let mut world = World::start().await;
    let accounts = [Uuid::now_v7()];
    let mut items = items(&world, &accounts, 3).await;
    // Postgres takes no NUL in a text.
    items[1].recipients[0].address = "nul\0@example.test".into();
    let outcomes = world.queue.work(items).await;
    let refused = "451 4.3.0 the mailbox store could not take the message";
    assert_eq!(outcomes, [DELIVERED, refused, DELIVERED]);
    counters_agree(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_made_when_mail_is_for_it() {
    let mut world = World::start().await;
    let alice = world.account("alice@example.test", 0);
    let mut item = world.item(alice, "Subject: x\r\n\r\n").await;
    item.recipients[0].local.as_mut().unwrap().folder = "Lists/rust".into();
    assert_eq!(world.queue.work(vec![item]).await, [DELIVERED]);
    assert_eq!(world.list("alice@example.test", "Lists/rust").await.len(), 1);
    counters_agree(&world).await;
}
