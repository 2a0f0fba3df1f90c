//! What is asked for is done, and the answer is lost: commits, scripts, calls, the 250 of a server elsewhere.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::Link;
use posthorn_testkit::proxy::{Flow, Proxy};
use tokio::time::sleep;

use crate::storm::{Setup, Storm};

/// Longer than a statement, a command and a handed over batch are waited for.
const HARM: Duration = Duration::from_secs(4);
const SETTINGS: &[&str] = &[
    "queue.database.statement_timeout=2s",
    "router.database.statement_timeout=2s",
    "local_delivery.database.statement_timeout=2s",
];

#[tokio::test(flavor = "multi_thread")]
async fn and_all_is_done_once() -> Result<()> {
    use Leases::{Kept, LostUntilNoticed};
    let mut storm = Storm::start_with(Setup { set: SETTINGS, ..Setup::default() }).await?;
    for (link, leases) in [
        (Link::QueuePostgres, Kept),
        (Link::QueueRedis, Kept),
        (Link::LocalDeliveryPostgres, Kept),
        (Link::RouterPostgres, Kept),
        (Link::IngressQueue, Kept),
        (Link::WorkersQueue, LostUntilNoticed),
    ] {
        let name = format!("{link:?}: answers are lost");
        storm.blow(&name, leases, async |storm| lose(storm.fleet.proxy(link)).await).await?;
    }
    storm.blow("RelayRemote: answers are lost", Kept, async |storm| lose(&storm.to_server).await).await?;
    storm.finish().await?;
    Ok(())
}

async fn lose(proxy: &Proxy) -> Result<()> {
    proxy.set(Flow::AnswersLost);
    sleep(HARM).await;
    proxy.set(Flow::Passes);
    Ok(())
}
