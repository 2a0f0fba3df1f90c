//! Several replicas of the queue: a stream to each.

use std::time::{Duration, Instant};

use posthorn_api::work::v1::work_request::Request;
use posthorn_testkit::wait;

use crate::queue::{LIMIT, Queue, Stream};
use crate::{Worker, tokens};

/// A worker of two queues, and its streams past their first credits: two of the first, one of the second.
async fn start() -> (Worker, [Queue; 2], [Stream; 2]) {
    let mut queues = [Queue::start().await, Queue::start().await];
    let worker = Worker::of(&[&queues[0], &queues[1]]);
    let mut streams = [queues[0].stream().await, queues[1].stream().await];
    let credits = [streams[0].credit().await, streams[1].credit().await];
    match credits {
        [2, 1] => {}
        [1, 2] => {
            queues.reverse();
            streams.reverse();
        }
        _ => panic!("{credits:?}"),
    }
    (worker, queues, streams)
}

/// Its next report, whatever it is asked for or extended before.
async fn report_of(stream: &mut Stream) -> posthorn_api::work::v1::Report {
    loop {
        match stream.next().await {
            Some(Request::Report(report)) => return report,
            Some(Request::Credit(_) | Request::Extend(_)) => {}
            other => panic!("{other:?} is no report"),
        }
    }
}

#[tokio::test]
async fn each_gets_credit_and_the_outcomes_of_its_batches() {
    let (mut worker, _queues, [mut a, mut b]) = start().await;
    a.give("a", 1);
    let of_a = worker.next().await;
    b.give("b", 1);
    let of_b = worker.next().await;
    of_b.report_outcomes(Vec::new());
    of_a.report_outcomes(Vec::new());
    let (report_a, report_b) = (report_of(&mut a).await, report_of(&mut b).await);
    assert_eq!((tokens(&report_a), tokens(&report_b)), (vec![&b"a"[..]], vec![&b"b"[..]]));
    // What is recorded makes room where least was asked for.
    a.record(&report_a);
    b.record(&report_b);
    assert_eq!(a.credit().await + b.credit().await, 2);
}

#[tokio::test]
async fn what_one_that_dies_has_not_recorded_is_told_to_the_other_at_once() {
    let (mut worker, mut queues, [mut a, mut b]) = start().await;
    a.give("a1", 1);
    a.give("a2", 2);
    let told = worker.next().await;
    let (later, given_back) = (worker.next().await, worker.next().await);
    told.report_outcomes(Vec::new());
    let unrecorded = report_of(&mut a).await;
    queues[0].goes_away();
    let died = Instant::now();
    drop(a);
    assert_eq!(report_of(&mut b).await, unrecorded);
    // Its leases go on by the other, too, and so does what ends later.
    let extended = loop {
        match b.next().await {
            Some(Request::Extend(extend)) => break extend.tokens.len(),
            Some(Request::Credit(_)) => {}
            other => panic!("{other:?} is no extension"),
        }
    };
    assert_eq!(extended, 2);
    assert!(died.elapsed() < Duration::from_secs(10), "long before the lease's third: {:?}", died.elapsed());
    later.report_outcomes(Vec::new());
    assert_eq!(tokens(&report_of(&mut b).await), [b"a2"]);
    drop(given_back);
    assert_eq!(b.released().await, 1);
    assert!(!worker.misses_the_queue(), "one lives");
    queues[1].goes_away();
    drop(b);
    wait::until("the need", LIMIT, async || worker.misses_the_queue().then_some(())).await;
}

#[tokio::test]
async fn while_all_are_away_outcomes_wait_for_the_first_that_comes() {
    let (mut worker, mut queues, [a, b]) = start().await;
    a.give("a", 1);
    let item = worker.next().await;
    queues[0].goes_away();
    drop((a, b));
    item.report_outcomes(Vec::new());
    let mut b = queues[1].stream().await;
    let report = report_of(&mut b).await;
    assert_eq!(tokens(&report), [b"a"]);
    b.record(&report);
    worker.shutdown.cancel();
    while b.next().await.is_some() {}
    drop(b);
    worker.ends().await;
}

#[tokio::test]
async fn one_that_comes_later_gets_a_stream_and_credit() {
    let mut queues = [Queue::start().await, Queue::start().await];
    let mut worker = Worker::of(&[&queues[0]]);
    let mut a = queues[0].stream().await;
    assert_eq!(a.credit().await, 3);
    worker.sees(&[&queues[0], &queues[1]]);
    let mut b = queues[1].stream().await;
    assert_eq!(b.credit().await, 1, "all are with the other, and it has one all the same");
    // Beyond that no more is asked for than there is room for: three batches are asked for or held.
    b.give("b", 1);
    let item = worker.next().await;
    a.give("a", 1);
    let of_a = worker.next().await;
    item.report_outcomes(Vec::new());
    let report = b.report().await;
    b.record(&report);
    // Now that the other has two and holds one, one that has nothing is asked for one.
    assert_eq!(b.credit().await, 1);
    of_a.report_outcomes(Vec::new());
    let report = a.report().await;
    a.record(&report);
    // Three are asked for. That room is made for another shows that no more were.
    a.give("a", 0);
    assert_eq!(a.credit().await, 1);
    assert!(!queues[0].has_another() && !queues[1].has_another(), "a stream to each, and no more");
}

#[tokio::test]
async fn no_more_is_asked_for_than_there_is_room_for() {
    let (mut worker, _queues, [mut a, mut b]) = start().await;
    a.give("a1", 1);
    a.give("a2", 1);
    let mut held = vec![worker.next().await, worker.next().await];
    b.give("b", 1);
    held.push(worker.next().await);
    // All is held: each that ends makes room for one.
    held.into_iter().for_each(drop);
    let (mut credits, mut released) = (0, 0);
    while credits < 3 || released < 3 {
        assert!(credits <= 3, "{credits} batches are asked for");
        let said = tokio::select! {
            said = a.next() => said,
            said = b.next() => said,
        };
        match said {
            Some(Request::Credit(credit)) => credits += credit.batches,
            Some(Request::Release(release)) => released += release.items.len(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn one_that_the_dns_no_longer_shows_is_let_go_in_order() {
    let (mut worker, queues, [mut a, mut b]) = start().await;
    a.give("a", 1);
    let item = worker.next().await;
    worker.sees(&[&queues[1]]);
    // Its share is the other's now.
    let mut more = 0;
    while more == 0 {
        more += b.credit().await;
    }
    // What comes all the same is not begun.
    a.give("late", 1);
    assert_eq!(a.released().await, 1);
    item.report_outcomes(Vec::new());
    let report = a.report().await;
    a.record(&report);
    assert!(a.next().await.is_none(), "the stream is ended, and none follows");
    drop(a);
    b.give("b", 1);
    worker.next().await.report_outcomes(Vec::new());
    report_of(&mut b).await;
    assert!(!queues[0].has_another());
}

#[tokio::test]
async fn stopping_ends_all_streams_when_all_is_recorded() {
    let (mut worker, _queues, [mut a, mut b]) = start().await;
    a.give("a", 1);
    let item = worker.next().await;
    worker.shutdown.cancel();
    b.give("late", 1);
    assert_eq!(b.released().await, 1);
    item.report_outcomes(Vec::new());
    let report = a.report().await;
    a.record(&report);
    assert!(a.next().await.is_none() && b.next().await.is_none());
    drop((a, b));
    worker.ends().await;
}
