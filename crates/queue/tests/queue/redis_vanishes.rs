//! Redis is gone without a word: its connections lead nowhere, and are not closed.

use std::time::Duration;

use posthorn_api::work::v1::WorkKind;
use posthorn_testkit::proxy::{Flow, Proxy};

use crate::common::*;

/// A queue that reaches Redis by a way that can break.
async fn behind_proxy(stores: &Stores) -> (Proxy, Queue) {
    let redis = format!("127.0.0.1:{}", stores.redis.port()).parse().expect("an address");
    let proxy =
        Proxy::start("127.0.0.1:0".parse().expect("an address"), vec![redis]).await.expect("it starts");
    let url = format!("redis://{}", proxy.address());
    let queue = stores.queue(&[("queue.redis.url", &url), ("queue.redis.timeout", "500ms")]).await;
    (proxy, queue)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word() {
    let stores = Stores::new().await;
    let (proxy, queue) = behind_proxy(&stores).await;
    let mut router = queue.worker(WorkKind::Route, 10, 10).await;
    queue.accept(vec![message("a@example.net", &["b@example.test"]).1]).await;
    router.batch().await;
    proxy.set(Flow::HalfOpen);
    let (id, item) = message("a@example.net", &["c@example.test"]);
    queue.accept(vec![item]).await;
    proxy.set(Flow::Passes);
    let batch = tokio::time::timeout(Duration::from_secs(20), router.batch()).await.expect("work in time");
    assert_eq!(batch.items[0].message_id, posthorn_api::message_id_bytes(id));
    drop(router);
    queue.stop().await;
}

/// Found by `make chaos`: a subscription that was begun meanwhile waited for its answer for ever, and this replica's
/// workers for work that others had told of.
#[tokio::test(flavor = "multi_thread")]
async fn and_is_heard_again_when_it_is_back() {
    let stores = Stores::new().await;
    let (proxy, queue) = behind_proxy(&stores).await;
    proxy.set(Flow::HalfOpen);
    proxy.cut();
    // It tries to listen again after a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.set(Flow::Passes);
    let mut redis = redis::Client::open(stores.redis.url()).expect("a URL");
    until("it listens", Duration::from_secs(20), async || {
        let listening: (String, u32) =
            redis::cmd("PUBSUB").arg("NUMSUB").arg("posthorn:wake").query(&mut redis).ok()?;
        (listening.1 == 1).then_some(())
    })
    .await;
    queue.stop().await;
}
