//! The connections between each two parties are cut, hold everything back, become slow, and lead nowhere.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::fleet::Link;
use posthorn_testkit::proxy::{Flow, Proxy};
use tokio::time::sleep;

use crate::storm::Storm;

const HARM: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn between_each_two_parties() -> Result<()> {
    let mut storm = Storm::start(None).await?;
    for link in Link::WITHIN {
        for fault in FAULTS {
            let name = format!("{link:?}: {fault:?}");
            storm.blow(&name, async |storm| harm(storm.fleet.proxy(*link), fault).await).await?;
        }
    }
    for fault in FAULTS {
        storm
            .blow(&format!("RelayRemote: {fault:?}"), async |storm| harm(&storm.to_server, fault).await)
            .await?;
    }
    storm.finish().await
}

/// `Passes`: cut while it does.
const FAULTS: [Flow; 4] = [Flow::Passes, Flow::Held, Flow::Slow(20_000), Flow::HalfOpen];

async fn harm(proxy: &Proxy, fault: Flow) -> Result<()> {
    if fault == Flow::Passes {
        for _ in 0..4 {
            proxy.cut();
            sleep(HARM / 4).await;
        }
    }
    proxy.set(fault);
    sleep(HARM).await;
    proxy.set(Flow::Passes);
    Ok(())
}
