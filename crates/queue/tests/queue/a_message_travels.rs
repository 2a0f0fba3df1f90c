//! From acceptance to the end, with real stores.

use crate::common::*;
use posthorn_api::work::v1::WorkKind;

#[tokio::test(flavor = "multi_thread")]
async fn to_a_mailbox_and_to_another_server() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let (id, item) = message("a@example.net", &["bob@example.test", "carol@example.org"]);
    queue.accept(vec![item]).await;

    let mut router = queue.worker(WorkKind::Route, 1, 100).await;
    let batch = router.batch().await;
    assert_eq!(batch.items[0].message_id[..], id.as_bytes()[..]);
    router.route(&batch, |a| if a.ends_with("example.test") { local(a) } else { remote(a) }).await;

    let mut mailboxes = queue.worker(WorkKind::Local, 1, 100).await;
    let batch = mailboxes.batch().await;
    assert_eq!(batch.items[0].recipients[0].address, "bob@example.test");
    assert_eq!(mailboxes.outcome(&batch, |_| delivered()).await, []);

    let mut relay = queue.worker(WorkKind::Remote, 1, 100).await;
    let batch = relay.batch().await;
    assert_eq!(batch.destination, "mx.example.org");
    assert_eq!(batch.items[0].content.as_deref(), Some(CONTENT.as_bytes()));
    assert_eq!(relay.outcome(&batch, |_| delivered()).await, []);

    stores.until_empty().await;
    // A mailbox refers to the content: it stays.
    assert_eq!(stores.count("content.chunk").await, 1);
    assert_eq!(stores.count("content.released").await, 0);
    queue.stop().await;
}
