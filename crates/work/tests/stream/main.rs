//! The work streams, against queues of the test's own.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a test")]

mod queue;
mod replicas;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use posthorn_api::work::v1::work_request::Request;
use posthorn_api::work::v1::{Report, WorkKind};
use posthorn_service::{Process, Readiness};
use posthorn_testkit::wait;
use posthorn_work::{Batch, Held, Leased, Work};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use queue::{LIMIT, Queue, Stream};

/// Work that the test does.
struct Hands(mpsc::UnboundedSender<Leased>);

impl Work for Hands {
    const KIND: WorkKind = WorkKind::Local;
    const STALE: &'static str = "stale";
    const TAKES_EARLY: bool = true;

    fn max_batch(&self) -> u32 {
        10
    }

    fn ask(&self, held: Held) -> u32 {
        3_u32.saturating_sub(held.batches + held.asked)
    }

    fn begin(&mut self, batch: Batch) {
        batch.items.into_iter().for_each(|item| self.0.send(item).unwrap());
    }
}

struct Worker {
    begun: mpsc::UnboundedReceiver<Leased>,
    /// The queue's replicas, as the DNS shows them.
    dns: watch::Sender<HashSet<SocketAddr>>,
    shutdown: CancellationToken,
    patience: CancellationToken,
    ready: Readiness,
    running: JoinHandle<()>,
}

impl Worker {
    /// A worker of these.
    fn of(queues: &[&Queue]) -> Self {
        let (hands, begun) = mpsc::unbounded_channel();
        let (shutdown, patience) = (CancellationToken::new(), CancellationToken::new());
        let ready = Process::new(shutdown.clone(), None).ready;
        let need = ready.need("queue");
        let (dns, replicas) = watch::channel(HashSet::new());
        let tokens = (shutdown.clone(), patience.clone());
        let running = tokio::spawn(async move {
            posthorn_work::run(Hands(hands), replicas, &need, tokens.0, tokens.1).await;
        });
        let worker = Self { begun, dns, shutdown, patience, ready, running };
        worker.sees(queues);
        worker
    }

    /// The DNS shows these.
    fn sees(&self, queues: &[&Queue]) {
        self.dns.send_replace(queues.iter().map(|queue| queue.address).collect());
    }

    async fn next(&mut self) -> Leased {
        tokio::time::timeout(LIMIT, self.begun.recv()).await.expect("work comes in time").unwrap()
    }

    async fn ends(self) {
        tokio::time::timeout(LIMIT, self.running).await.expect("the worker ends in time").unwrap();
    }

    fn misses_the_queue(&self) -> bool {
        self.ready.missing().iter().any(|(name, _)| *name == "queue")
    }
}

/// A worker and its first stream, past the first credit.
async fn start() -> (Worker, Queue, Stream) {
    let mut queue = Queue::start().await;
    let worker = Worker::of(&[&queue]);
    let mut stream = queue.stream().await;
    assert_eq!(stream.credit().await, 3);
    (worker, queue, stream)
}

fn tokens(report: &Report) -> Vec<&[u8]> {
    report.items.iter().map(|item| item.token.as_ref()).collect()
}

#[tokio::test]
async fn a_batch_that_is_recorded_makes_room_for_another() {
    let (mut worker, _queue, mut stream) = start().await;
    stream.give("a", 2);
    worker.next().await.report_outcomes(Vec::new());
    let first = stream.report().await;
    worker.next().await.report_outcomes(Vec::new());
    let second = stream.report().await;
    assert_eq!((tokens(&first), tokens(&second)), (vec![&b"a"[..]], vec![&b"a"[..]]));
    stream.record(&first);
    stream.record(&second);
    assert_eq!(stream.credit().await, 1);
    // So does one that is empty.
    stream.give("b", 0);
    assert_eq!(stream.credit().await, 1);
}

#[tokio::test]
async fn what_is_dropped_is_given_back() {
    let (mut worker, _queue, mut stream) = start().await;
    stream.give("a", 1);
    drop(worker.next().await);
    assert_eq!(stream.released().await, 1);
    assert_eq!(stream.credit().await, 1);
}

#[tokio::test]
async fn what_a_worker_fell_over_is_left_to_its_lease() {
    let (mut worker, _queue, mut stream) = start().await;
    stream.give_for("a", 1, Duration::from_millis(900));
    let item = worker.next().await;
    let fallen = tokio::spawn(async move {
        let _held = item;
        tokio::task::yield_now().await;
        panic!("as the test wants it");
    });
    assert!(fallen.await.is_err());
    // Neither reported nor given back nor, though another batch is, extended.
    assert_eq!(stream.credit().await, 1);
    stream.give_for("b", 1, Duration::from_millis(900));
    let held = worker.next().await;
    for _ in 0..2 {
        let Some(Request::Extend(extend)) = stream.next().await else { panic!("no extension") };
        assert_eq!(extend.tokens, [b"b".as_slice()]);
    }
    drop(held);
}

#[tokio::test]
async fn a_lease_is_extended_while_the_queue_can_be_told() {
    let (mut worker, mut queue, mut stream) = start().await;
    stream.give_for("a", 1, Duration::from_millis(900));
    let item = worker.next().await;
    for _ in 0..2 {
        let Some(Request::Extend(_)) = stream.next().await else { panic!("no extension") };
    }
    queue.goes_away();
    drop(stream);
    wait::until("its end", LIMIT, async || item.is_overdue(Instant::now()).then_some(())).await;
}

#[tokio::test]
async fn outcomes_found_while_the_queue_is_away_are_told_when_it_is_back() {
    let (mut worker, mut queue, mut stream) = start().await;
    stream.give("a", 1);
    stream.give("b", 2);
    worker.next().await.report_outcomes(Vec::new());
    let unrecorded = stream.report().await;
    drop(stream);
    worker.next().await.report_outcomes(Vec::new());
    worker.next().await.report_outcomes(Vec::new());
    let mut stream = queue.stream().await;
    assert_eq!(stream.report().await, unrecorded);
    let mut found = Vec::new();
    while found.len() < 2 {
        match stream.next().await {
            Some(Request::Report(report)) => found.extend(report.items),
            Some(Request::Extend(extend)) => assert_eq!(extend.tokens.len(), 2),
            // Two batches are still held.
            Some(Request::Credit(credit)) => assert_eq!(credit.batches, 1),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_report_that_the_queue_refuses_is_not_told_again() {
    let (mut worker, mut queue, mut stream) = start().await;
    stream.give("a", 1);
    worker.next().await.report_outcomes(Vec::new());
    stream.report().await;
    stream.refuse(Status::invalid_argument("no such status"));
    let mut stream = queue.stream().await;
    assert_eq!(stream.credit().await, 3);
    stream.give("b", 1);
    worker.next().await.report_outcomes(Vec::new());
    assert_eq!(tokens(&stream.report().await), [b"b"]);
}

#[tokio::test]
async fn a_queue_that_breaks_every_stream_at_once_is_not_besieged() {
    let (_worker, mut queue, stream) = start().await;
    let begun = Instant::now();
    stream.refuse(Status::unavailable("not yet"));
    for _ in 0..4 {
        queue.stream().await.refuse(Status::unavailable("not yet"));
    }
    assert!(begun.elapsed() > Duration::from_millis(700), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_worker_that_is_sent_away_finishes_and_comes_back() {
    let (mut worker, mut queue, mut stream) = start().await;
    stream.give("a", 1);
    let item = worker.next().await;
    stream.send_away();
    // What comes all the same is not begun.
    stream.give("b", 2);
    assert_eq!(stream.released().await, 2);
    item.report_outcomes(Vec::new());
    let report = stream.report().await;
    stream.record(&report);
    assert!(stream.next().await.is_none());
    drop(stream);
    assert_eq!(queue.stream().await.credit().await, 3);
}

#[tokio::test]
async fn stopping_waits_until_what_is_held_is_recorded_or_given_back() {
    let (mut worker, _queue, mut stream) = start().await;
    stream.give("a", 2);
    let (first, last) = (worker.next().await, worker.next().await);
    worker.shutdown.cancel();
    first.report_outcomes(Vec::new());
    let report = stream.report().await;
    stream.record(&report);
    // What is given back last arrives, too, before the stream ends.
    drop(last);
    assert_eq!(stream.released().await, 1);
    assert!(stream.next().await.is_none());
    drop(stream);
    worker.ends().await;
}

#[tokio::test]
async fn stopping_waits_for_a_queue_that_is_away_no_longer_than_patience() {
    let (mut worker, mut queue, stream) = start().await;
    stream.give("a", 1);
    let item = worker.next().await;
    queue.goes_away();
    drop(stream);
    worker.shutdown.cancel();
    item.report_outcomes(Vec::new());
    let tried =
        async || worker.ready.missing().iter().any(|(_, why)| why.contains("takes no workers")).then_some(());
    wait::until("an attempt", LIMIT, tried).await;
    assert!(!worker.running.is_finished(), "it has something to tell");
    worker.patience.cancel();
    worker.ends().await;
}

#[tokio::test]
async fn an_early_item_is_kept_or_not_and_a_broken_stream_does_not_say() {
    let (mut worker, _queue, stream) = start().await;
    stream.give("late", 1);
    assert!(worker.next().await.early.is_none());
    for (token, is_kept) in [("kept", true), ("lost", false)] {
        stream.give_early(token);
        let leased = worker.next().await;
        let mut early = leased.early.clone().unwrap();
        let unknown = tokio::time::timeout(Duration::from_millis(50), early.known()).await;
        assert!(unknown.is_err(), "nothing was said");
        stream.keep(token, is_kept);
        assert_eq!((early.known().await, early.known().await), (is_kept, is_kept));
    }
    stream.give_early("broken");
    let mut early = worker.next().await.early.clone().unwrap();
    drop(stream);
    assert!(!tokio::time::timeout(LIMIT, early.known()).await.expect("it is told in time"));
}
