//! A recipient that comes to several.

use posthorn_api::work::v1::{RouteTarget, WorkKind};
use posthorn_dsn::{Action, Report};

use crate::common::*;

fn to(address: &str, sender: Option<&str>) -> RouteTarget {
    let mut target = local(address).remove(0);
    target.sender = sender.map(str::to_owned);
    target
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_once_and_failures_of_a_list_to_its_owner() {
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
            ("bob@example.test", Some("owner@example.test"), ""),
            ("carol@example.test", None, "rfc822;alias@example.test"),
        ]
    );
    let outcomes = |r: &posthorn_api::work::v1::ItemRecipient| {
        if r.address.starts_with("bob") { delivered() } else { failed("no such mailbox") }
    };
    assert_eq!(mailboxes.outcome(&batch, outcomes).await, []);

    // One notice to the owner about alice, one to the sender about carol.
    let batch = router.batch().await;
    let mut told = Vec::new();
    for item in &batch.items {
        let report = Report::parse(&queue.content(&item.message_id).await).unwrap();
        assert_eq!(report.recipients.len(), 1);
        assert_eq!(report.recipients[0].action, Action::Failed);
        told.push((report.to.to_string(), report.recipients[0].final_recipient.to_string()));
    }
    told.sort();
    let told: Vec<_> = told.iter().map(|(to, about)| (to.as_str(), about.as_str())).collect();
    assert_eq!(
        told,
        [("owner@example.test", "alice@example.test"), ("sender@example.net", "carol@example.test")]
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
