//! Deferred, told of the delay, given up, bounced; each notice once, in order.

use std::time::Duration;

use crate::common::*;
use posthorn_api::work::v1::{Batch, WorkKind};
use posthorn_dsn::{Action, Report};

/// The notice in a batch of fresh messages: its recipient and its report.
async fn notice(queue: &Queue, router: &mut Worker) -> (Batch, String, Report) {
    let batch = router.batch().await;
    router.credit(1).await;
    assert_eq!(batch.items.len(), 1);
    let item = &batch.items[0];
    assert_eq!(item.sender, "", "a notice has the null sender");
    let report = Report::parse(&queue.content(&item.message_id).await).expect("it is a notice");
    (batch.clone(), item.recipients[0].address.clone(), report)
}

#[tokio::test(flavor = "multi_thread")]
async fn delay_notice_then_bounce_in_schedule_order() {
    let stores = Stores::new().await;
    let queue = stores
        .queue(&[
            ("queue.retry.schedule", r#"["6s","1s","2s"]"#),
            ("queue.notice.after", r#"["3s"]"#),
            ("queue.give_up.attempts", "3"),
        ])
        .await;
    let (id, item) = message("sender@example.test", &["a@example.net"]);
    queue.accept(vec![item]).await;
    let mut router = queue.worker(WorkKind::Route, 3, 10).await;
    let batch = router.batch().await;
    router.route(&batch, remote).await;

    let mut relay = queue.worker(WorkKind::Remote, 10, 10).await;
    let mut attempts = Vec::new();
    for n in 0..3 {
        let batch = relay.batch().await;
        attempts.push(std::time::Instant::now());
        assert_eq!(batch.items[0].recipients[0].attempt, n);
        assert_eq!(relay.outcome(&batch, |_| deferred("come back later")).await, []);
    }
    for (pair, pause) in attempts.windows(2).zip([6.0, 1.0]) {
        let took = (pair[1] - pair[0]).as_secs_f64();
        assert!((pause * 0.95..pause + 10.0).contains(&took), "{took} s, not {pause}");
    }

    let (delay, to, report) = notice(&queue, &mut router).await;
    assert_eq!(to, "sender@example.test");
    assert_eq!(report.recipients[0].action, Action::Delayed);
    assert_eq!(report.recipients[0].final_recipient.to_string(), "a@example.net");
    let (bounce, _, report) = notice(&queue, &mut router).await;
    let failed = &report.recipients[0];
    assert_eq!((failed.action, failed.status.to_string().as_str()), (Action::Failed, "4.0.0"));
    assert!(failed.diagnostic.as_ref().unwrap().text().contains("come back later"), "{failed:?}");
    assert_eq!(failed.remote_mta.as_deref(), Some("mx.example.net"));
    assert_eq!(report.about, Some(id));

    for batch in [delay, bounce] {
        router.route(&batch, local).await;
    }
    let mut mailboxes = queue.worker(WorkKind::Local, 4, 10).await;
    let mut left = 2;
    while left > 0 {
        let batch = mailboxes.batch().await;
        left -= batch.items.len();
        assert_eq!(mailboxes.outcome(&batch, |_| delivered()).await, []);
    }
    stores.until_empty().await;
    // No notice about a notice, and none twice.
    router.nothing(Duration::from_millis(300)).await;

    let trace = queue
        .trace()
        .trace_message(posthorn_api::trace::v1::TraceMessageRequest { message_id: id.to_string() })
        .await
        .unwrap()
        .into_inner();
    let kinds: Vec<_> =
        trace.events.iter().map(|e| e.kind().as_str_name().trim_start_matches("EVENT_KIND_")).collect();
    assert_eq!(kinds, ["ACCEPTED", "ROUTED", "DEFERRED", "NOTICE", "DEFERRED", "FAILED", "NOTICE", "ENDED"]);
    assert_eq!((trace.sender.as_str(), trace.pending), ("sender@example.test", 0));
    drop((router, relay, mailboxes));
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_given_up_in_time() {
    let stores = Stores::new().await;
    let queue = stores
        .queue(&[
            ("queue.give_up.after", "1s"),
            ("queue.notice.after", "[]"),
            ("queue.lease.length", "8s"),
            ("queue.database.statement_timeout", "7s"),
        ])
        .await;
    let (_, item) = message("sender@example.test", &["a@example.net"]);
    let (_, null) = message("", &["b@example.net"]);
    queue.accept(vec![item, null]).await;
    // Nobody routes it. The one from the null sender just ends.
    until("the messages to end", LIMIT, async || (stores.count("spool.message").await == 1).then_some(()))
        .await;
    let mut router = queue.worker(WorkKind::Route, 1, 10).await;
    let (_, to, report) = notice(&queue, &mut router).await;
    assert_eq!(to, "sender@example.test");
    assert_eq!(report.recipients.len(), 1);
    assert_eq!(report.recipients[0].status.to_string(), "4.4.7");
    drop(router);
    queue.stop().await;
}
