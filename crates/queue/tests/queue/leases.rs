//! Leases that end, workers that die, stores that forget.

use std::time::Duration;

use crate::common::*;
use posthorn_api::queue::v1 as admin;
use posthorn_api::work::v1::{WorkKind, work_response::Response};
use posthorn_mail::MessageId;

const SHORT: [(&str, &str); 2] = [("queue.lease.length", "5s"), ("queue.database.statement_timeout", "4s")];

/// A message that a router has said is for a mailbox here, and that router.
async fn one_for_a_mailbox(queue: &Queue) -> (MessageId, Worker) {
    let (id, item) = message("a@example.net", &["b@example.test"]);
    queue.accept(vec![item]).await;
    let mut router = queue.worker(WorkKind::Route, 1, 10).await;
    let batch = router.batch().await;
    router.route(&batch, local).await;
    (id, router)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_is_given_to_another_and_a_late_report_changes_nothing() {
    let stores = Stores::new().await;
    let queue = stores.queue(&SHORT).await;
    let (id, router) = one_for_a_mailbox(&queue).await;

    let mut slow = queue.worker(WorkKind::Local, 1, 10).await;
    let lost = slow.batch().await;
    let mut other = queue.worker(WorkKind::Local, 1, 10).await;
    let batch = other.batch().await;
    assert_ne!(lost.token, batch.token);
    assert_eq!(lost.items, batch.items);

    assert_eq!(slow.outcome(&lost, |_| failed("no")).await, [id]);
    assert_eq!(stores.count("spool.message").await, 1);
    assert_eq!(other.outcome(&batch, |_| delivered()).await, []);
    stores.until_empty().await;
    drop((router, slow, other));
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_report_on_what_others_have_ended_is_told_to_be_late() {
    let stores = Stores::new().await;
    let queue = stores.queue(&SHORT).await;
    let (id, router) = one_for_a_mailbox(&queue).await;

    // The first has it from what is in hand, the others by the schedule.
    let mut late = Vec::new();
    for _ in 0..2 {
        let mut worker = queue.worker(WorkKind::Local, 1, 10).await;
        let batch = worker.batch().await;
        late.push((worker, batch));
    }
    let mut last = queue.worker(WorkKind::Local, 1, 10).await;
    let batch = last.batch().await;
    assert_eq!(last.outcome(&batch, |_| delivered()).await, []);
    stores.until_empty().await;
    for (worker, batch) in &mut late {
        assert_eq!(worker.outcome(batch, |_| delivered()).await, [id]);
    }
    drop((router, late, last));
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_broken_stream_is_given_to_another_soon() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[("queue.lease.orphaned", "100ms")]).await;
    queue.accept(vec![message("a@example.net", &["b@example.test"]).1]).await;
    let mut first = queue.worker(WorkKind::Route, 1, 10).await;
    first.batch().await;
    drop(first);
    let started = std::time::Instant::now();
    let mut second = queue.worker(WorkKind::Route, 1, 10).await;
    second.batch().await;
    assert!(started.elapsed() < Duration::from_secs(15));
    drop(second);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_takes_its_leave_is_let_go_at_once() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let worker = queue.worker(WorkKind::Local, 1, 10).await;
    let mut responses = worker.responses;
    drop(worker.requests);
    let end = tokio::time::timeout(LIMIT, responses.message()).await;
    assert_eq!(end.expect("the stream ends").expect("it ends well"), None);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_take_turns_though_one_could_do_it_all() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(queue.worker(WorkKind::Route, 100, 10).await);
    }
    let mut given = [0; 3];
    for _ in 0..30 {
        queue.accept(vec![message("a@example.net", &["b@example.test"]).1]).await;
        let next = workers.iter_mut().map(|worker| Box::pin(worker.batch()));
        let (batch, at, _) = futures::future::select_all(next).await;
        workers[at].route(&batch, local).await;
        given[at] += 1;
    }
    assert_eq!(given, [10; 3]);
    drop(workers);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_forgot_everything_is_filled_and_outcomes_count() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let items: Vec<_> =
        (0..50).map(|n| message(&format!("s{n}@example.net"), &["b@example.test"]).1).collect();
    queue.accept(items).await;
    let mut router = queue.worker(WorkKind::Route, 1, 20).await;
    let leased = router.batch().await;
    assert_eq!(leased.items.len(), 20);
    stores.flush_redis().await;
    // The outcome of what was leased is recorded, though Redis knows nothing of the lease.
    router.route(&leased, local).await;
    // All the rest comes, each once.
    let mut left = 30;
    while left > 0 {
        router.credit(1).await;
        let batch = router.batch().await;
        left -= batch.items.len();
        router.route(&batch, local).await;
    }
    let mut mailboxes = queue.worker(WorkKind::Local, 50, 100).await;
    let mut left = 50;
    while left > 0 {
        let batch = mailboxes.batch().await;
        left -= batch.items.len();
        assert_eq!(mailboxes.outcome(&batch, |_| delivered()).await, []);
    }
    stores.until_empty().await;
    drop((router, mailboxes));
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_accepted_while_redis_is_away_and_goes_on_when_it_is_back() {
    let mut stores = Stores::new().await;
    let queue = stores.queue(&[("queue.redis.timeout", "500ms")]).await;
    let port = stores.redis.port();
    let dir = tempfile::tempdir().unwrap();
    // Another server in its place later, with nothing in it.
    let gone = std::mem::replace(&mut stores.redis, posthorn_testkit::stores::redis().await);
    tokio::task::spawn_blocking(move || gone.crash()).await.unwrap();
    queue.accept(vec![message("a@example.net", &["b@example.test"]).1]).await;
    // It says what it misses, and is ready all the same: who has mail must find it.
    let ready = queue.process.ready.clone();
    until("the word of it", LIMIT, async || ready.missing().iter().any(|(n, _)| *n == "redis").then_some(()))
        .await;
    assert!(ready.is_ready());
    let path = dir.path().to_owned();
    let back = tokio::task::spawn_blocking(move || posthorn_stores::Redis::start(&path, port)).await.unwrap();
    let mut router = queue.worker(WorkKind::Route, 1, 10).await;
    let batch = router.batch().await;
    router.route(&batch, local).await;
    drop(router);
    queue.stop().await;
    drop(back);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_killed_goes_on_where_it_was() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    queue.accept((0..10).map(|_| message("a@example.net", &["b@example.test"]).1).collect()).await;
    let mut router = queue.worker(WorkKind::Route, 1, 5).await;
    let leased = router.batch().await;
    drop(router);
    queue.kill().await;

    let queue = stores.queue(&[]).await;
    let mut router = queue.worker(WorkKind::Route, 1, 100).await;
    // The lease outlives the process that gave it out.
    router.route(&leased, local).await;
    let batch = router.batch().await;
    assert_eq!(batch.items.len(), 5);
    router.route(&batch, local).await;
    let mut mailboxes = queue.worker(WorkKind::Local, 10, 100).await;
    let mut left = 10;
    while left > 0 {
        let batch = mailboxes.batch().await;
        left -= batch.items.len();
        assert_eq!(mailboxes.outcome(&batch, |_| delivered()).await, []);
    }
    stores.until_empty().await;
    drop((router, mailboxes));
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_again_and_again_is_not_set_aside() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[("queue.lease.poison_after", "2")]).await;
    let (_, item) = message("a@example.net", &["b@example.test"]);
    queue.accept(vec![item]).await;
    // A worker that cannot reach its store has nothing against the message.
    let mut router = queue.worker(WorkKind::Route, 1, 10).await;
    for _ in 0..6 {
        let batch = router.batch().await;
        router.give_back(&batch).await;
        router.credit(1).await;
    }
    let batch = router.batch().await;
    router.route(&batch, local).await;
    drop(router);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_cannot_be_read_counts_neither_for_nor_against_a_message() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[("queue.lease.poison_after", "2"), ("queue.lease.orphaned", "50ms")]).await;
    queue.accept(vec![message("a@example.net", &["b@example.test"]).1]).await;
    let mut dies = queue.worker(WorkKind::Route, 1, 10).await;
    dies.batch().await;
    drop(dies);
    stores.execute("ALTER TABLE spool.recipient RENAME TO elsewhere").await;
    // Leased again and again, and never given out.
    let mut dies = queue.worker(WorkKind::Route, 1, 10).await;
    dies.nothing(Duration::from_secs(1)).await;
    stores.execute("ALTER TABLE spool.elsewhere RENAME TO recipient").await;
    dies.batch().await;
    drop(dies);
    // Two leases came to nothing: that is enough.
    let mut router = queue.worker(WorkKind::Route, 1, 10).await;
    until("it to be set aside", LIMIT, async || {
        (stores.count("spool.message WHERE poison").await == 1).then_some(())
    })
    .await;
    router.nothing(Duration::from_millis(300)).await;
    drop(router);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kills_its_workers_is_set_aside_until_an_operator_says_so() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[("queue.lease.poison_after", "2"), ("queue.lease.orphaned", "50ms")]).await;
    let (id, item) = message("a@example.net", &["b@example.test"]);
    queue.accept(vec![item]).await;
    for _ in 0..2 {
        let mut dies = queue.worker(WorkKind::Route, 1, 10).await;
        dies.batch().await;
    }
    let mut router = queue.worker(WorkKind::Route, 1, 10).await;
    assert_eq!(queue.set_aside().await, [id.to_string()]);
    router.nothing(Duration::from_millis(300)).await;
    let target = Some(admin::Target { target: Some(admin::target::Target::MessageId(id.to_string())) });
    let retried = queue.admin().retry(admin::RetryRequest { target }).await.unwrap().into_inner();
    assert_eq!(retried.messages, 1);
    let batch = router.batch().await;
    router.route(&batch, local).await;
    drop(router);
    queue.stop().await;
}

/// Found by an audit: an outcome that Postgres refuses was tried again for ever, and all others waited behind it.
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_written_keeps_no_other_and_is_set_aside() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let (bad, first) = message("a@example.net", &["bad@example.test"]);
    let (_, second) = message("c@example.net", &["d@example.test"]);
    queue.accept(vec![first, second]).await;
    let mut router = queue.worker(WorkKind::Route, 2, 10).await;
    let mut left = 2;
    while left > 0 {
        let batch = router.batch().await;
        left -= batch.items.len();
        let nowhere = |address: &str| match address {
            // No text of Postgres holds a NUL.
            "bad@example.test" => local("bad\0@example.test"),
            other => local(other),
        };
        router.route(&batch, nowhere).await;
    }
    let mut mailboxes = queue.worker(WorkKind::Local, 1, 10).await;
    let batch = mailboxes.batch().await;
    assert_eq!(batch.items.len(), 1);
    assert_eq!(mailboxes.outcome(&batch, |_| delivered()).await, []);
    assert_eq!(queue.set_aside().await, [bad.to_string()]);
    drop((router, mailboxes));
    queue.stop().await;
}

/// Found by an audit: all that a worker held when a message killed it was set aside with that message.
#[tokio::test(flavor = "multi_thread")]
async fn what_killed_its_workers_is_given_alone_and_takes_no_others_with_it() {
    let stores = Stores::new().await;
    let settings =
        [("queue.lease.orphaned", "50ms"), ("queue.lease.in_hand", "0"), ("queue.lease.poison_after", "4")];
    let queue = stores.queue(&settings).await;
    let sent: Vec<_> = (0..5).map(|n| message("a@example.net", &[&format!("b{n}@example.test")])).collect();
    let killer = sent[2].0;
    queue.accept(sent.into_iter().map(|(_, item)| item).collect()).await;
    let mut sizes = Vec::new();
    let mut done = 0;
    while done < 4 {
        let mut router = queue.worker(WorkKind::Route, 1, 10).await;
        let batch = router.batch().await;
        sizes.push(batch.items.len());
        if batch.items.iter().any(|item| item.message_id == posthorn_api::message_id_bytes(killer)) {
            // It dies.
            continue;
        }
        router.route(&batch, local).await;
        done += batch.items.len();
    }
    assert_eq!(&sizes[..2], [5, 5]);
    assert!(sizes[2..].iter().all(|size| *size == 1), "{sizes:?}");
    while stores.count("spool.message WHERE poison").await == 0 {
        let mut dies = queue.worker(WorkKind::Route, 1, 10).await;
        let _ = tokio::time::timeout(Duration::from_millis(200), dies.batch()).await;
    }
    assert_eq!(queue.set_aside().await, [killer.to_string()]);
    queue.stop().await;
}

/// Found by an audit: what came up while a replica was stopping the others found by looking, once a minute.
#[tokio::test(flavor = "multi_thread")]
async fn others_hear_of_work_that_comes_up_while_a_queue_stops() {
    let stores = Stores::new().await;
    let (stopping, other) = (stores.queue(&[]).await, stores.queue(&[]).await);
    let mut mailboxes = other.worker(WorkKind::Local, 10, 10).await;
    let mut router = stopping.worker(WorkKind::Route, 10, 10).await;
    let (id, item) = message("a@example.net", &["b@example.test"]);
    stopping.accept(vec![item]).await;
    let batch = router.batch().await;
    stopping.process.shutdown.cancel();
    assert!(matches!(
        router.responses.message().await.expect("a word").and_then(|word| word.response),
        Some(Response::GoAway(_))
    ));
    router.route(&batch, local).await;
    let batch = mailboxes.batch().await;
    assert_eq!(batch.items[0].message_id, posthorn_api::message_id_bytes(id));
    drop((router, mailboxes));
    stopping.stop().await;
    other.stop().await;
}
