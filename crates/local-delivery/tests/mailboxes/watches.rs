//! A watcher sees what happens to a mailbox, at once, and goes on where it was.

use std::time::{Duration, Instant};

use crate::world::{LIMIT, World};
use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use posthorn_api::mailbox::v1::watch_response::Change;
use posthorn_testkit::proxy::{Flow, Proxy};
use posthorn_testkit::wait;
use tonic::Streaming;

const ALICE: &str = "alice@example.test";

async fn watch(world: &mut World, after_modseq: Option<u64>) -> Streaming<api::WatchResponse> {
    let request = api::WatchRequest { mailbox: ALICE.into(), folder: String::new(), after_modseq };
    let mut stream = world.mailbox.watch(request).await.unwrap().into_inner();
    assert!(matches!(next(&mut stream).await.change, Some(Change::Started(_))));
    stream
}

async fn next(stream: &mut Streaming<api::WatchResponse>) -> api::WatchResponse {
    tokio::time::timeout(LIMIT, stream.message()).await.expect("a change").unwrap().unwrap()
}

async fn next_subject(stream: &mut Streaming<api::WatchResponse>) -> (String, u64) {
    let response = next(stream).await;
    match response.change {
        Some(Change::Message(message)) => (message.subject, response.modseq),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_seen_at_once() {
    let hour = Duration::from_secs(3600);
    let mut world = World::start_with(|config| config.mailbox.recheck_watched_every = hour).await;
    let alice = world.account(ALICE, 0);
    let mut stream = watch(&mut world, None).await;
    let mut fastest = Duration::MAX;
    for n in 0..5 {
        let item = world.item(alice, &format!("Subject: {n}\r\n\r\n")).await;
        let sent = Instant::now();
        world.queue.send(crate::world::batch(vec![item])).await;
        assert_eq!(next_subject(&mut stream).await, (n.to_string(), n + 1));
        fastest = fastest.min(sent.elapsed());
    }
    // A few milliseconds on a quiet machine. Of several the fastest, and with much to spare, so that a busy one does not
    // decide; what is not woken is not seen for an hour.
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    println!("seen after {fastest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_comes_back_misses_nothing() {
    let mut world = World::start().await;
    let alice = world.account(ALICE, 0);
    for n in 0..3 {
        world.deliver(alice, &format!("Subject: {n}\r\n\r\n")).await;
    }
    let mut stream = watch(&mut world, Some(1)).await;
    assert_eq!(next_subject(&mut stream).await, ("1".into(), 2));
    assert_eq!(next_subject(&mut stream).await, ("2".into(), 3));
    world.deliver(alice, "Subject: 3\r\n\r\n").await;
    assert_eq!(next_subject(&mut stream).await, ("3".into(), 4));
    drop(stream);
    // More than are read at once.
    let items = 120;
    for n in 0..items {
        world.deliver(alice, &format!("Subject: more {n}\r\n\r\n")).await;
    }
    let mut stream = watch(&mut world, Some(4)).await;
    for n in 0..items {
        assert_eq!(next_subject(&mut stream).await, (format!("more {n}"), 5 + n));
    }
    let request =
        api::WatchRequest { mailbox: ALICE.into(), folder: String::new(), after_modseq: Some(9999) };
    assert_eq!(world.mailbox.watch(request).await.unwrap_err().code(), tonic::Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_another_replica_delivers() {
    let mut world = World::start().await;
    let alice = world.account(ALICE, 0);
    let (replica, mut queue) = world.replica().await;
    let mut stream = watch(&mut world, None).await;
    let item = world.item(alice, "Subject: from afar\r\n\r\n").await;
    queue.work(vec![item]).await;
    assert_eq!(next_subject(&mut stream).await, ("from afar".into(), 1));
    replica.stop().await;
    // A service that stops ends its watchers, so that they come back to another.
    world.service.stop().await;
    assert_eq!(stream.message().await.unwrap_err().code(), tonic::Code::Unavailable);
}

/// Found by an audit: over a connection that had vanished without a word nothing was heard again.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_postgres_could_not_reach_hears_of_others_again() {
    let mut world = World::start().await;
    let alice = world.account(ALICE, 0);
    let (proxy, through) = Proxy::before_postgres(&world.url).await.unwrap();
    let hour = Duration::from_secs(3600);
    let (replica, _queue) =
        world.replica_on(&through, |config| config.mailbox.recheck_watched_every = hour).await;
    world.mailbox = MailboxServiceClient::new(posthorn_service::connect(&replica.grpc).unwrap());

    proxy.set(Flow::HalfOpen);
    world.deliver(alice, "Subject: not heard of\r\n\r\n").await;
    proxy.set(Flow::Passes);
    let request = api::WatchRequest { mailbox: ALICE.into(), folder: String::new(), after_modseq: None };
    let mut stream = wait::until("a watch", LIMIT, async || {
        let mut stream = world.mailbox.clone().watch(request.clone()).await.ok()?.into_inner();
        // The connections that it reads by were of before, too.
        let first = tokio::time::timeout(LIMIT, stream.message()).await.ok()?.ok()??;
        matches!(first.change, Some(Change::Started(_))).then_some(stream)
    })
    .await;
    // The first one is there when it begins to look.
    for (n, subject) in [(2, "seen"), (3, "heard of")] {
        world.deliver(alice, &format!("Subject: {subject}\r\n\r\n")).await;
        assert_eq!(next_subject(&mut stream).await, (subject.to_owned(), n));
    }
    replica.stop().await;
    world.service.stop().await;
}
