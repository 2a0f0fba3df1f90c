//! A worker that is stopped for longer than its lease wakes up and reports what others have done meanwhile.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::fleet::Service;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::storm::Storm;

/// The fleet's leases last 10 s.
const PAST_THE_LEASE: Duration = Duration::from_secs(13);

#[tokio::test(flavor = "multi_thread")]
async fn past_their_leases() -> Result<()> {
    let mut storm = Storm::start(None).await?;
    for service in [Service::LocalDelivery, Service::RemoteRelay, Service::Router] {
        let number = storm.any();
        storm
            .blow(&format!("SIGSTOP of {}-{number}, then SIGCONT", service.name()), async |storm| {
                let replica = storm.fleet.replica(service, number);
                replica.signal(Signal::STOP)?;
                sleep(PAST_THE_LEASE).await;
                replica.signal(Signal::CONT)
            })
            .await?;
    }
    storm.finish().await
}
