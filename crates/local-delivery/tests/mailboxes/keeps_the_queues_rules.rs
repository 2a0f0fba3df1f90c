//! The work stream: credits, extensions, giving back, reconnecting, stopping.

use std::time::Duration;

use crate::world::{Heard, LIMIT, World, batch};
use posthorn_api::work::v1::{GoAway, work_response};
use posthorn_testkit::proxy::{Flow, Proxy};
use posthorn_testkit::{stores, wait};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn credit_comes_back_with_each_batch() {
    let mut world = World::start().await;
    let given = async |world: &World, n| {
        wait::until("credit", LIMIT, async || (world.queue.credits() == n).then_some(())).await;
    };
    given(&world, 4).await;
    world.deliver(Uuid::now_v7(), "\r\n").await;
    given(&world, 5).await;
    // What is not recorded is not finished.
    world.queue.record(false);
    world.deliver(Uuid::now_v7(), "\r\n").await;
    assert_eq!(world.queue.credits(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_was_not_recorded_is_told_again_on_the_next_stream() {
    let mut world = World::start().await;
    world.queue.record(false);
    let item = world.item(Uuid::now_v7(), "\r\n").await;
    world.queue.send(batch(vec![item.clone()])).await;
    let Heard::Report(first) = world.queue.heard().await else { panic!("no report") };
    world.queue.record(true);
    world.queue.hang_up();
    let Heard::Report(again) = world.queue.heard().await else { panic!("no report") };
    assert_eq!(first, again);
    wait::until("credit", LIMIT, async || (world.queue.credits() >= 4).then_some(())).await;
    world.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_sent_away_comes_back() {
    let mut world = World::start().await;
    let reason = "test".to_owned();
    world.queue.answer(work_response::Response::GoAway(GoAway { reason })).await;
    wait::until("a new stream", LIMIT, async || (world.queue.streams() == 2).then_some(())).await;
    world.deliver(Uuid::now_v7(), "\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_extended_while_the_mailbox_is_locked() {
    let mut world = World::start().await;
    let alice = Uuid::now_v7();
    world.deliver(alice, "\r\n").await;
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM mailbox.account FOR UPDATE").execute(&mut *lock).await.unwrap();
    let mut batch = batch(vec![world.item(alice, "\r\n").await]);
    batch.lease = Some(posthorn_api::duration(Duration::from_millis(600)));
    world.queue.send(batch.clone()).await;
    for _ in 0..2 {
        let Heard::Extend(extend) = world.queue.heard().await else { panic!("no extension") };
        assert_eq!(extend.tokens, [batch.token.clone()]);
    }
    lock.rollback().await.unwrap();
    loop {
        match world.queue.heard().await {
            Heard::Extend(_) => {}
            Heard::Report(_) => break,
            Heard::Release(release) => panic!("{release:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_reports_what_it_does_and_gives_back_the_rest() {
    let mut world = World::start_with(|config| config.work.writers = 1).await;
    let alice = Uuid::now_v7();
    world.deliver(alice, "\r\n").await;
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM mailbox.account FOR UPDATE").execute(&mut *lock).await.unwrap();
    let first = world.item(alice, "\r\n").await;
    world.queue.send(batch(vec![first.clone()])).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    wait::until("the writer to wait", LIMIT, async || (world.count(waiting).await > 0).then_some(())).await;
    let second = world.item(alice, "\r\n").await;
    let mut batch = batch(vec![second.clone()]);
    batch.lease = Some(posthorn_api::duration(Duration::from_millis(600)));
    let token = batch.token.clone();
    world.queue.send(batch).await;
    // Who extends it has it.
    while !matches!(world.queue.heard().await, Heard::Extend(extend) if extend.tokens.contains(&token)) {}
    world.service.stop.cancel();
    lock.rollback().await.unwrap();
    let (mut reported, mut released) = (Vec::new(), Vec::new());
    while reported.len() + released.len() < 2 {
        match world.queue.heard().await {
            Heard::Report(report) => reported.extend(report.items.into_iter().map(|item| item.message_id)),
            Heard::Release(release) => released.extend(release.items.into_iter().map(|item| item.message_id)),
            Heard::Extend(_) => {}
        }
    }
    assert_eq!((reported, released), (vec![first.message_id], vec![second.message_id]));
    world.service.stop().await;
}

/// Another may reach Postgres; and the message may come to another end while this one waits.
async fn work_is_given_back_where_postgres_stays_away(flow: Flow) {
    let (proxy, through) = Proxy::before_postgres(&stores::database().await).await.unwrap();
    let mut world = World::on(through, |config| {
        config.database.acquire_timeout = Duration::from_secs(2);
        config.database.statement_timeout = Duration::from_secs(2);
        config.work.patience = Duration::from_millis(300);
    })
    .await;
    let alice = Uuid::now_v7();
    world.deliver(alice, "\r\n").await;
    let item = world.item(alice, "\r\n").await;
    proxy.set(flow);
    if flow == Flow::Refused {
        proxy.cut();
    }
    world.queue.send(batch(vec![item.clone()])).await;
    let released = match world.queue.heard().await {
        Heard::Release(release) => release.items,
        other => panic!("{other:?}"),
    };
    assert!(matches!(&released[..], [one] if one.message_id == item.message_id), "{released:?}");
    assert!(!world.service.is_ready());

    proxy.set(Flow::Passes);
    // Also where others have delivered it meanwhile, and there is nothing that would tell.
    world.service.has_all().await;
    assert_eq!(world.queue.work(vec![item]).await, ["250 2.0.0 delivered to the mailbox"]);
    world.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_given_back_where_postgres_is_silent() {
    work_is_given_back_where_postgres_stays_away(Flow::HalfOpen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_given_back_where_postgres_cannot_be_reached() {
    work_is_given_back_where_postgres_stays_away(Flow::Refused).await;
}
