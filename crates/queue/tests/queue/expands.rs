//! A recipient that comes to several.

use posthorn_api::mail::v1 as mail;
use posthorn_api::work::v1::{RouteTarget, WorkKind};
use posthorn_dsn::{Action, Report};

use crate::common::*;

fn to(address: &str, sender: Option<&str>) -> RouteTarget {
    let mut target = local(address).remove(0);
    target.sender = sender.map(str::to_owned);
    target
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_once_and_failures_of_a_list_to_its_owner_unless_the_sender_named_the_member() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let (_, item) =
        message("sender@example.net", &["all@example.test", "bob@example.test", "alias@example.test"]);
    queue.accept(vec![item]).await;
    let mut router = queue.worker(WorkKind::Route, 2, 10).await;
    let batch = router.batch().await;
    router
        .route(&batch, |address| match address {
            "all@example.test" => ["alice@example.test", "bob@example.test"]
                .map(|member| to(member, Some("owner@example.test")))
                .into(),
            "alias@example.test" => vec![to("carol@example.test", None)],
            other => local(other),
        })
        .await;
    let mut mailboxes = queue.worker(WorkKind::Local, 1, 10).await;
    let batch = mailboxes.batch().await;
    let mut got: Vec<_> = batch.items[0]
        .recipients
        .iter()
        .map(|r| (r.address.as_str(), r.sender.as_deref(), r.original_recipient.as_str()))
        .collect();
    got.sort_unstable();
    assert_eq!(
        got,
        [
            ("alice@example.test", Some("owner@example.test"), ""),
            ("bob@example.test", None, ""),
            ("carol@example.test", None, "rfc822;alias@example.test"),
        ]
    );
    assert_eq!(mailboxes.outcome(&batch, |_| failed("no such mailbox")).await, []);

    // One notice to the owner about alice, one to the sender about bob, whom it named itself, and carol.
    let batch = router.batch().await;
    let mut told = Vec::new();
    for item in &batch.items {
        let report = Report::parse(&queue.content(&item.message_id).await).unwrap();
        for recipient in &report.recipients {
            assert_eq!(recipient.action, Action::Failed);
            told.push((report.to.to_string(), recipient.final_recipient.to_string()));
        }
    }
    told.sort();
    let told: Vec<_> = told.iter().map(|(to, about)| (to.as_str(), about.as_str())).collect();
    assert_eq!(
        told,
        [
            ("owner@example.test", "alice@example.test"),
            ("sender@example.net", "bob@example.test"),
            ("sender@example.net", "carol@example.test"),
        ]
    );
    drop((router, mailboxes));
    queue.stop().await;
}

/// Found by an audit: a member who was a recipient already used up a number, which the next expansion gave again.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_are_there_already_use_up_no_number() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let given = ["alice@example.test", "team@example.test", "sales@example.test", "all@example.test"];
    let (_, item) = message("sender@example.net", &given);
    queue.accept(vec![item]).await;
    let mut router = queue.worker(WorkKind::Route, 2, 10).await;
    let batch = router.batch().await;
    let recorded = router.route(&batch, |address| match address {
        "team@example.test" => vec![to("alice@example.test", None), to("bob@example.test", None)],
        "sales@example.test" => vec![to("carol@example.test", None)],
        "all@example.test" => {
            ["alice", "bob", "carol", "dave"].map(|name| to(&format!("{name}@example.test"), None)).into()
        }
        other => local(other),
    });
    recorded.await;
    let mut mailboxes = queue.worker(WorkKind::Local, 1, 10).await;
    let batch = mailboxes.batch().await;
    let mut got: Vec<_> = batch.items[0].recipients.iter().map(|r| r.address.as_str()).collect();
    got.sort_unstable();
    assert_eq!(got, ["alice", "bob", "carol", "dave"].map(|name| format!("{name}@example.test")));
    assert_eq!(mailboxes.outcome(&batch, |_| delivered()).await, []);
    drop((router, mailboxes));
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_told_though_others_come_to_the_same_address() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let (_, mut item) =
        message("sender@example.net", &["quiet@example.test", "list@example.test", "bob@example.test"]);
    let envelope = item.start.as_mut().and_then(|start| start.envelope.as_mut()).expect("an envelope");
    envelope.recipients[0].notify = Some(mail::Notify { never: true, ..Default::default() });
    envelope.recipients[1].notify = Some(mail::Notify { success: true, ..Default::default() });
    queue.accept(vec![item]).await;
    let mut router = queue.worker(WorkKind::Route, 3, 10).await;
    let batch = router.batch().await;
    router
        .route(&batch, |address| match address {
            "list@example.test" => vec![to("carol@example.test", Some("owner@example.test"))],
            _ => local("bob@example.test"),
        })
        .await;
    // RFC 3461 §5.2.7.3: the list has it.
    assert_eq!(told(&queue, &mut router).await, [("list@example.test".to_owned(), Action::Delivered)]);
    let mut mailboxes = queue.worker(WorkKind::Local, 1, 10).await;
    let batch = mailboxes.batch().await;
    assert_eq!(batch.items[0].recipients.len(), 2);
    let outcomes = |r: &posthorn_api::work::v1::ItemRecipient| {
        if r.address.starts_with("bob") { failed("no such mailbox") } else { delivered() }
    };
    assert_eq!(mailboxes.outcome(&batch, outcomes).await, []);
    assert_eq!(told(&queue, &mut router).await, [("bob@example.test".to_owned(), Action::Failed)]);
    drop((router, mailboxes));
    queue.stop().await;
}

/// What the next notices say.
async fn told(queue: &Queue, router: &mut Worker) -> Vec<(String, Action)> {
    let mut told = Vec::new();
    for item in router.batch().await.items {
        let report = Report::parse(&queue.content(&item.message_id).await).expect("a report");
        told.extend(report.recipients.iter().map(|r| (r.final_recipient.to_string(), r.action)));
    }
    told
}
