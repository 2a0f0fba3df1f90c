//! No sender and no destination holds up another (R8).

use posthorn_api::work::v1::WorkKind;

use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_of_one_sender_do_not_delay_one_of_another() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    for _ in 0..4 {
        queue.accept((0..250).map(|_| message("many@example.net", &["b@example.test"]).1).collect()).await;
    }
    let mut router = queue.worker(WorkKind::Route, 1, 10).await;
    router.batch().await;
    queue.accept(vec![message("one@example.net", &["b@example.test"]).1]).await;
    // It is among the next ones, whatever waited before.
    router.credit(1).await;
    let batch = router.batch().await;
    assert!(batch.items.iter().any(|item| item.sender == "one@example.net"), "{}", batch.items.len());
    drop(router);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailing_with_a_sender_for_each_message_does_not_delay_others() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    for batch in 0..4 {
        let sender = |n| format!("bounces-{batch}-{n}@example.net");
        queue.accept((0..250).map(|n| message(&sender(n), &["b@example.test"]).1).collect()).await;
    }
    let mut router = queue.worker(WorkKind::Route, 1, 10).await;
    router.batch().await;
    queue.accept(vec![message("one@example.org", &["b@example.test"]).1]).await;
    let mut before = 0;
    loop {
        router.credit(1).await;
        let batch = router.batch().await;
        if batch.items.iter().any(|item| item.sender == "one@example.org") {
            break;
        }
        before += batch.items.len();
        assert!(before < 80, "it waits for all of them");
    }
    drop(router);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_take_turns_and_a_dead_one_is_left_alone() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[("queue.retry.schedule", r#"["1h"]"#)]).await;
    let mut items = Vec::new();
    for domain in ["dead.example", "slow.example", "good.example"] {
        items.extend((0..20).map(|n| message(&format!("s{n}@example.net"), &[&format!("x@{domain}")]).1));
    }
    queue.accept(items).await;
    let mut router = queue.worker(WorkKind::Route, 1, 100).await;
    let mut left = 60;
    while left > 0 {
        let batch = router.batch().await;
        left -= batch.items.len();
        router.route(&batch, remote).await;
        router.credit(1).await;
    }
    let mut relay = queue.worker(WorkKind::Remote, 3, 2).await;
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(relay.batch().await);
    }
    let mut names: Vec<_> = first.iter().map(|b| b.destination.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["mx.dead.example", "mx.good.example", "mx.slow.example"]);
    for batch in first.iter().filter(|b| b.destination == "mx.dead.example") {
        assert_eq!(relay.outcome(batch, |_| unavailable()).await, []);
    }
    // Of the slow one no more than its five at once, of the dead one none.
    relay.credit(100).await;
    let (mut slow, mut good) = (1, 0);
    while good < 9 || slow < 5 {
        let batch = relay.batch().await;
        match batch.destination.as_str() {
            "mx.slow.example" => slow += 1,
            "mx.good.example" => {
                good += 1;
                assert_eq!(relay.outcome(&batch, |_| delivered()).await, []);
            }
            other => panic!("{other} was to be left alone"),
        }
    }
    relay.nothing(std::time::Duration::from_millis(300)).await;
    assert_eq!(slow, 5);
    drop((router, relay));
    queue.stop().await;
}
