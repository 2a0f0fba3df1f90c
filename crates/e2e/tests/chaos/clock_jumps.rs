//! The clock of the services is set forward and back by an hour while mail flows.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::{REPLICAS, Service};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::storm::Storm;

#[tokio::test(flavor = "multi_thread")]
async fn by_an_hour() -> Result<()> {
    let mut storm = Storm::start().await?;
    let clock = Clock::new(&storm.fleet.data())?;
    for service in Service::ALL {
        for number in 0..REPLICAS {
            clock.govern(storm.fleet.replica(service, number)).await?;
        }
    }
    storm.fleet.all_ready(Duration::from_secs(60)).await;
    // Forward once more at the end: what was put off while it was later is due then, an hour late but not lost.
    for (name, offset) in [
        ("forward", "+1h"),
        ("right", "+0"),
        ("back", "-1h"),
        ("right again", "+0"),
        ("forward again", "+1h"),
    ] {
        storm
            .blow(&format!("the clock set {name}"), Leases::Kept, async |_| {
                clock.set(offset)?;
                sleep(Duration::from_secs(5)).await;
                Ok(())
            })
            .await?;
    }
    storm.finish().await?;
    Ok(())
}
