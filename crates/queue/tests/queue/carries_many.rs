//! How many messages a second go through the queue alone: `cargo test --release -p posthorn-queue -- --ignored
//! --nocapture carries_many`.

use std::time::Instant;

use posthorn_api::work::v1::{DeliveryReport, ItemReport, RecipientOutcome, RouteReport, RouteResult};
use posthorn_api::work::v1::{WorkKind, item_report};

use crate::common::*;

const MESSAGES: usize = 20_000;

/// Reports whatever comes, without waiting for the word.
async fn work(mut worker: Worker, kind: WorkKind) {
    let mut report_id = 0;
    while let Ok(Some(response)) = worker.responses.message().await {
        let Some(posthorn_api::work::v1::work_response::Response::Batch(batch)) = response.response else {
            continue;
        };
        let items = batch.items.iter().map(|item| {
            let nos = item.recipients.iter().map(|r| (r.recipient_no, r.address.as_str()));
            let report = if kind == WorkKind::Route {
                let results =
                    nos.map(|(recipient_no, a)| RouteResult { recipient_no, targets: local(a) }).collect();
                item_report::Report::Route(RouteReport { results })
            } else {
                let recipients = nos
                    .map(|(recipient_no, _)| RecipientOutcome { recipient_no, outcome: Some(delivered()) })
                    .collect();
                item_report::Report::Delivery(DeliveryReport { recipients })
            };
            ItemReport {
                token: batch.token.clone(),
                message_id: item.message_id.clone(),
                report: Some(report),
            }
        });
        report_id += 1;
        let report = posthorn_api::work::v1::Report { report_id, items: items.collect() };
        let request = posthorn_api::work::v1::work_request::Request::Report(report);
        if worker.requests.send(posthorn_api::work::v1::WorkRequest { request: Some(request) }).await.is_err()
        {
            return;
        }
        worker.credit(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn messages_a_second() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    for kind in [WorkKind::Route, WorkKind::Local] {
        tokio::spawn(work(queue.worker(kind, 8, 256).await, kind));
    }
    let started = Instant::now();
    let (queue_ref, sessions) = (&queue, 16);
    let accept = (0..sessions).map(|n| async move {
        for _ in 0..MESSAGES / sessions / 10 {
            let items = (0..10).map(|_| message(&format!("s{n}@example.net"), &["b@example.test"]).1);
            queue_ref.accept(items.collect()).await;
        }
    });
    futures::future::join_all(accept).await;
    let accepted = started.elapsed();
    while stores.count("spool.message").await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let ended = started.elapsed();
    let rate = |elapsed: std::time::Duration| MESSAGES as f64 / elapsed.as_secs_f64();
    println!("accepted {:.0}/s, accepted, routed, delivered and ended {:.0}/s", rate(accepted), rate(ended));
    queue.stop().await;
}

/// Word of what the schedule has may come while a worker is busy with what was in hand: it comes once, for all of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_in_hand_does_not_wait_there() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[("queue.lease.in_hand", "64")]).await;
    for kind in [WorkKind::Route, WorkKind::Local] {
        tokio::spawn(work(queue.worker(kind, 1, 16).await, kind));
    }
    for burst in 0..20 {
        let items = (0..100 + burst).map(|n| message(&format!("s{n}@example.net"), &["b@example.test"]).1);
        queue.accept(items.collect()).await;
        stores.until_empty().await;
    }
    queue.stop().await;
}
