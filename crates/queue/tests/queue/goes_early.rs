//! What the router has said before goes to local-delivery without asking it again; a message that is alone even while it
//! is being written into the ledger: what comes of it there waits for the ledger's word.

use std::time::Duration;

use crate::common::*;
use posthorn_api::spool::v1::{AcceptItem, AcceptResult};
use posthorn_api::work::v1::{Batch, Hello, Kept, WorkKind, work_response::Response};
use posthorn_mail::MessageId;
use sqlx::{Postgres, Transaction};
use tokio::task::JoinHandle;

/// A message whose recipients the router has said to be mailboxes.
fn routed(sender: &str, recipients: &[&str]) -> (MessageId, AcceptItem) {
    let (id, mut item) = message(sender, recipients);
    let said = recipients.iter().flat_map(|recipient| local(recipient)).collect();
    item.start.as_mut().expect("it has a start").routed = said;
    (id, item)
}

/// A queue, with a router and a local-delivery, in which no message gets into the ledger as long as the lock is held.
struct World {
    stores: Stores,
    queue: std::sync::Arc<Queue>,
    router: Worker,
    mailboxes: Worker,
    lock: Option<Transaction<'static, Postgres>>,
}

impl World {
    async fn start(takes_early: bool) -> Self {
        let stores = Stores::new().await;
        let queue = std::sync::Arc::new(stores.queue(&[]).await);
        let router = queue.worker(WorkKind::Route, 10, 10).await;
        let kind = WorkKind::Local.into();
        let hello = Hello { kind, worker: "test".into(), max_batch: 10, takes_early };
        let mut world =
            Self { mailboxes: queue.worker_that_says(hello, 10).await, lock: None, stores, queue, router };
        // Both workers have come when what is accepted goes through their hands.
        world.queue.accept(vec![message("a@example.net", &["b@example.test"]).1]).await;
        let batch = world.router.batch().await;
        world.router.route(&batch, local).await;
        let batch = world.mailboxes.batch().await;
        assert_eq!(world.mailboxes.outcome(&batch, |_| delivered()).await, []);
        world.stores.until_empty().await;
        let mut lock = world.stores.pool.begin().await.expect("a transaction");
        let statement = "LOCK TABLE spool.message IN EXCLUSIVE MODE";
        sqlx::query(statement).execute(&mut *lock).await.expect("the lock");
        world.lock = Some(lock);
        world
    }

    /// Hands messages in, for which the router has been asked; of each the recipients.
    fn hand_in(&self, messages: &[&[&str]]) -> JoinHandle<Vec<AcceptResult>> {
        let items = messages.iter().map(|recipients| routed("a@example.net", recipients).1).collect();
        let queue = self.queue.clone();
        tokio::spawn(async move { queue.try_accept(items).await })
    }

    async fn unlock(&mut self) {
        self.lock.take().expect("it is locked").rollback().await.expect("it is unlocked");
    }

    async fn early(&mut self) -> Batch {
        let batch = self.mailboxes.batch().await;
        assert!(batch.early && batch.items.len() == 1, "{batch:?}");
        let header = CONTENT.split_once("Hello").map_or("", |(header, _)| header);
        assert_eq!(batch.items[0].header, header);
        self.mailboxes.nothing(Duration::from_millis(200)).await;
        batch
    }

    async fn says(&mut self, batch: &Batch, is_kept: bool) {
        let kept = Kept { token: batch.token.clone(), is_kept };
        assert_eq!(self.mailboxes.response().await, Response::Kept(kept));
    }

    /// Postgres gives up what waits for the lock.
    async fn refuse(&self) {
        self.stores
            .execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND datname = current_database()",
            )
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_alone_is_given_before_it_is_kept_and_then_kept() {
    for recipients in [&["c@example.test"][..], &["c@example.test", "d@example.test", "e@example.test"]] {
        let mut world = World::start(true).await;
        let accepted = world.hand_in(&[recipients]);
        let batch = world.early().await;
        assert_eq!(batch.items[0].recipients.len(), recipients.len());
        assert!(!accepted.is_finished());
        world.unlock().await;
        world.says(&batch, true).await;
        assert!(accepted.await.expect("it is accepted")[0].result.is_some());
        assert_eq!(world.mailboxes.outcome(&batch, |_| delivered()).await, []);
        world.stores.until_empty().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_said_not_to_be() {
    let mut world = World::start(true).await;
    let queue = world.queue.clone();
    let (id, item) = routed("a@example.net", &["c@example.test"]);
    let accepted = tokio::spawn(async move {
        let request = posthorn_api::spool::v1::AcceptRequest { items: vec![item] };
        queue.spool().accept(request).await
    });
    let batch = world.early().await;
    world.refuse().await;
    world.says(&batch, false).await;
    accepted.await.expect("it is answered").expect_err("it is not taken");
    // Whoever delivered it nevertheless is not believed.
    assert_eq!(world.mailboxes.outcome(&batch, |_| delivered()).await, [id]);
    assert_eq!(world.stores.count("spool.message").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_early_comes_again_when_it_is_kept() {
    let mut world = World::start(true).await;
    let accepted = world.hand_in(&[&["c@example.test"]]);
    let batch = world.early().await;
    world.mailboxes.give_back(&batch).await;
    world.router.nothing(Duration::from_millis(200)).await;
    world.unlock().await;
    accepted.await.expect("it is accepted");
    let again = world.router.batch().await;
    assert_eq!(again.items[0].message_id, batch.items[0].message_id);
    world.router.route(&again, local).await;
    loop {
        match world.mailboxes.response().await {
            Response::Kept(_) => {}
            Response::Batch(batch) => {
                assert!(!batch.early);
                assert_eq!(world.mailboxes.outcome(&batch, |_| delivered()).await, []);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    world.stores.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_early_for_who_does_not_take_it_or_among_others() {
    let (one, two) = (&["c@example.test"][..], &["d@example.test"][..]);
    for (takes_early, messages) in [(false, &[one][..]), (true, &[one, two])] {
        let mut world = World::start(takes_early).await;
        let accepted = world.hand_in(messages);
        world.mailboxes.nothing(Duration::from_millis(300)).await;
        world.unlock().await;
        // What is not kept within seconds goes to the schedule, and is routed by it.
        let batch = loop {
            tokio::select! {
                batch = world.mailboxes.batch() => break batch,
                again = world.router.batch() => world.router.route(&again, local).await,
            }
        };
        assert!(!batch.early);
        assert_eq!(world.mailboxes.outcome(&batch, |_| delivered()).await, []);
        accepted.await.expect("it is accepted");
        world.stores.until_empty().await;
    }
}

/// Where local-delivery does not take it after all, the ledger hears first what the router had said.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_is_written_down_where_it_is_not_delivered() {
    let mut world = World::start(true).await;
    world.unlock().await;
    let accepted = world.hand_in(&[&["c@example.test"], &["d@example.test"]]);
    let mut batch = world.mailboxes.batch().await;
    assert_eq!((batch.items.len(), batch.early), (2, false));
    // Another worker may have taken it from the ledger before the outcome is written there: then that is stale.
    while !world.mailboxes.outcome(&batch, |_| deferred("full")).await.is_empty() {
        batch = world.mailboxes.batch().await;
    }
    accepted.await.expect("it is accepted");
    // What was put off is routed anew when its time has come.
    assert_eq!(world.stores.count("spool.recipient WHERE state = 0 AND attempts = 1").await, 2);
    world.router.nothing(Duration::from_millis(200)).await;
}
