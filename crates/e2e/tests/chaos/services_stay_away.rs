//! All replicas of a service are away for longer than a lease, and then they are back.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::{REPLICAS, Service};
use tokio::time::sleep;

use crate::storm::{Setup, Storm};

const SETTINGS: &[&str] = &["queue.lease.length=4s", "queue.database.statement_timeout=3s"];
const AWAY: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn for_longer_than_a_lease() -> Result<()> {
    let mut storm = Storm::start_with(Setup { set: SETTINGS, ..Setup::default() }).await?;
    for service in Service::ALL {
        let leases = match service {
            // The relay cannot say in time what it has done.
            Service::RemoteRelay | Service::Queue => Leases::Lost,
            Service::Router | Service::LocalDelivery | Service::Ingress => Leases::Kept,
        };
        storm
            .blow(&format!("no {} for 7 s", service.name()), leases, async |storm| {
                for number in 0..REPLICAS {
                    storm.fleet.replica(service, number).kill().await?;
                }
                sleep(AWAY).await;
                for number in 0..REPLICAS {
                    storm.fleet.replica(service, number).start()?;
                }
                Ok(())
            })
            .await?;
    }
    storm.finish().await?;
    Ok(())
}
