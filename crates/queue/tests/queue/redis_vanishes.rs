//! Redis is gone without a word: its connections lead nowhere, and are not closed.

use std::time::Duration;

use posthorn_api::work::v1::WorkKind;
use posthorn_testkit::proxy::{Flow, Proxy};

use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word() {
    let stores = Stores::new().await;
    let redis = format!("127.0.0.1:{}", stores.redis.port()).parse().expect("an address");
    let proxy =
        Proxy::start("127.0.0.1:0".parse().expect("an address"), vec![redis]).await.expect("it starts");
    let url = format!("redis://{}", proxy.address());
    let queue = stores.queue(&[("queue.redis.url", &url), ("queue.redis.timeout", "500ms")]).await;
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
