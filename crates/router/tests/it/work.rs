//! The work stream, against a queue of the test's own.

use std::time::Duration;

use posthorn_api::work::v1 as wire;
use posthorn_api::work::v1::work_request::Request as Asked;
use posthorn_api::work::v1::work_response::Response as Said;
use posthorn_testkit::dns::{Dns, Trouble};
use posthorn_testkit::wait;
use sqlx::Connection as _;

use crate::queue::{Queue, Worker, decisions};
use crate::running::{LIMIT, Router, database};

async fn connected(dns: &Dns, settings: &[(&str, &str)]) -> (Router, Queue, Worker) {
    let queue = Queue::start().await;
    let url = queue.setting();
    let settings: Vec<(&str, &str)> =
        settings.iter().copied().chain([("router.queue", url.as_str())]).collect();
    let router = Router::with_users(dns, &settings).await;
    let worker = queue.worker().await;
    (router, queue, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_of_a_message_is_decided() {
    let dns = Dns::start().await;
    dns.mx("example.net", 20, "mx2.example.net").mx("example.net", 10, "mx1.example.net");
    dns.a("mx1.example.net", [192, 0, 2, 1].into()).a("mx2.example.net", [192, 0, 2, 2].into());
    dns.mx("nomail.example", 0, ".");
    let (mut router, _queue, mut worker) = connected(&dns, &[]).await;
    router.alias("sales@example.test", &["bob@example.test", "carol@example.net"]).await;
    worker.give(
        "t",
        &[&[
            "alice@example.test",
            "nobody@example.test",
            "sales@example.test",
            "x@example.net",
            "x@nomail.example",
            "x@missing.example",
            "broken",
        ]],
    );
    let report = worker.report().await;
    assert_eq!(report.items[0].token, "t".as_bytes());
    assert_eq!(
        decisions(&report),
        [
            "alice@example.test local",
            "nobody@example.test 550 5.1.1",
            "bob@example.test local",
            "carol@example.net remote mx1.example.net,mx2.example.net example.net",
            "x@example.net remote mx1.example.net,mx2.example.net example.net",
            "x@nomail.example 556 5.1.10",
            "x@missing.example 550 5.1.2",
            "broken 553 5.1.3",
        ]
    );
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_domain_holds_up_nobody_else() {
    let dns = Dns::start().await;
    dns.trouble("slow.example", Trouble::Silent);
    let (router, _queue, mut worker) =
        connected(&dns, &[("router.dns.timeout", "10s"), ("router.dns.attempts", "1")]).await;
    let slow: &[&str] = &["x@slow.example"];
    let quick: &[&str] = &["alice@example.test"];
    worker.give("t1", &[slow, quick]);
    worker.give("t2", &[quick]);
    let mut reported = Vec::new();
    while reported.len() < 2 {
        reported.extend(worker.report().await.items.into_iter().map(|item| item.token));
    }
    reported.sort();
    assert_eq!(reported, ["t1", "t2"].map(str::as_bytes), "the quick ones come first");
    assert_eq!(decisions(&worker.report().await), ["x@slow.example 451 4.4.3"]);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_extended_while_the_dns_is_slow() {
    let dns = Dns::start().await;
    dns.trouble("slow.example", Trouble::Silent);
    let (router, _queue, mut worker) =
        connected(&dns, &[("router.dns.timeout", "10s"), ("router.dns.attempts", "1")]).await;
    worker.give_for("t", &[&["x@slow.example"]], Duration::from_secs(3));
    worker.report().await;
    assert!(worker.extended >= 1, "extended {} times", worker.extended);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_is_opened_again() {
    let dns = Dns::start().await;
    let (router, queue, worker) = connected(&dns, &[]).await;
    tokio::time::timeout(LIMIT, router.process.ready.complete()).await.unwrap();
    drop(worker);
    let mut worker = queue.worker().await;
    worker.give("t", &[&["alice@example.test"]]);
    worker.report().await;
    worker.say(Said::GoAway(wire::GoAway { reason: "elsewhere".into() }));
    let mut worker = queue.worker().await;
    worker.give("t", &[&["bob@example.test"]]);
    worker.report().await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_waits_for_what_was_begun_to_be_recorded() {
    let dns = Dns::start().await;
    dns.trouble("slow.example", Trouble::Silent);
    let (router, _queue, mut worker) =
        connected(&dns, &[("router.dns.timeout", "3s"), ("router.dns.attempts", "1")]).await;
    worker.next_but_reports().await;
    worker.give("t1", &[&["x@slow.example"]]);
    wait::until("the question", LIMIT, async || (dns.asked("slow.example", "MX") > 0).then_some(())).await;
    let stopped = tokio::spawn(router.stop());
    // What comes now is given back.
    tokio::task::yield_now().await;
    let report = loop {
        match worker.next().await.unwrap() {
            Asked::Report(report) => break report,
            other => assert!(matches!(other, Asked::Credit(_)), "{other:?}"),
        }
    };
    worker.give("t2", &[&["alice@example.test"]]);
    worker.next_but_reports().await;
    assert_eq!(worker.released.len(), 1, "what came too late is given back");
    assert!(!stopped.is_finished());
    worker.record(&report);
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_undecided_at_the_end_of_the_drain_time_is_given_back() {
    let dns = Dns::start().await;
    dns.trouble("slow.example", Trouble::Silent);
    let (router, _queue, mut worker) = connected(&dns, &[("router.work.drain", "100ms")]).await;
    worker.give("t", &[&["x@slow.example"]]);
    wait::until("the question", LIMIT, async || (dns.asked("slow.example", "MX") > 0).then_some(())).await;
    let stopped = tokio::spawn(router.stop());
    while worker.released.is_empty() {
        worker.next_but_reports().await;
    }
    assert!(worker.next().await.is_none(), "the stream is ended");
    drop(worker);
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_while_the_queue_is_away_is_reported_when_it_is_back() {
    let dns = Dns::start().await;
    dns.trouble("slow.example", Trouble::Silent);
    let (router, queue, mut worker) =
        connected(&dns, &[("router.dns.timeout", "3s"), ("router.dns.attempts", "1")]).await;
    worker.next_but_reports().await;
    worker.give("t", &[&["x@slow.example"]]);
    wait::until("the question", LIMIT, async || (dns.asked("slow.example", "MX") > 0).then_some(())).await;
    drop(worker);
    let mut worker = queue.worker().await;
    assert_eq!(decisions(&worker.report().await), ["x@slow.example 451 4.4.3"]);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_queue_it_is_ready_and_says_what_it_waits_for() {
    let router = Router::start(&database().await, &[]).await;
    assert!(router.process.ready.is_ready());
    let missing = router.process.ready.missing();
    assert_eq!(missing.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["queue"]);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_work_is_taken_while_the_directory_is_away() {
    let queue = Queue::start().await;
    let database = database().await;
    let mut router = Router::start(&database, &[("router.queue", &*queue.setting())]).await;
    router.domain("example.test").await;
    router.account("alice@example.test").await;
    let mut worker = queue.worker().await;

    let (server, name) = database.rsplit_once('/').unwrap();
    let mut owner = sqlx::PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    for statement in [
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut owner).await.unwrap();
    }
    worker.give("t1", &[&["alice@example.test", "x@unknown.test"]]);
    while worker.released.is_empty() {
        worker.next_but_reports().await;
    }
    wait::until("unreadiness", LIMIT, async || (!router.process.ready.is_ready()).then_some(())).await;
    let credits = worker.credits;
    worker.give("t2", &[&["alice@example.test"]]);
    while worker.released.len() < 2 {
        worker.next_but_reports().await;
    }
    assert_eq!(worker.credits, credits, "no more is asked for");

    let back = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
    sqlx::query(sqlx::AssertSqlSafe(back)).execute(&mut owner).await.unwrap();
    while worker.credits == credits {
        worker.next_but_reports().await;
    }
    worker.give("t3", &[&["alice@example.test"]]);
    assert_eq!(decisions(&worker.report().await), ["alice@example.test local"]);
    router.stop().await;
}
