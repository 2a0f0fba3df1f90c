//! A process that is stopped for longer than its lease wakes up and reports what others have done meanwhile.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::Service;
use posthorn_testkit::wait;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::storm::Storm;

/// The fleet's leases last 10 s.
const PAST_THE_LEASE: Duration = Duration::from_secs(13);

#[tokio::test(flavor = "multi_thread")]
async fn past_their_leases() -> Result<()> {
    let mut storm = Storm::start().await?;
    for (service, stale) in [
        (Service::LocalDelivery, Some("posthorn_local_delivery_stale_outcomes_total")),
        (Service::RemoteRelay, Some("posthorn_relay_stale_outcomes_total")),
        (Service::Router, Some("posthorn_router_stale_reports_total")),
        // These have no leases of their own: what they hand out, or over, is done by others meanwhile.
        (Service::Queue, None),
        (Service::Ingress, None),
    ] {
        let number = storm.any();
        let leases = match service {
            Service::RemoteRelay | Service::Queue => Leases::Lost,
            Service::Router | Service::LocalDelivery | Service::Ingress => Leases::Kept,
        };
        let name = format!("SIGSTOP of {}-{number}, then SIGCONT", service.name());
        storm
            .blow(&name, leases, async |storm| {
                let replica = storm.fleet.replica(service, number);
                replica.signal(Signal::STOP)?;
                sleep(PAST_THE_LEASE).await;
                replica.signal(Signal::CONT)
            })
            .await?;
        let Some(stale) = stale else { continue };
        let replica = storm.fleet.replica(service, number);
        let what = format!("{replica} to hear that its reports are stale");
        let count = wait::until(&what, Duration::from_secs(30), async || {
            replica.counted(stale).await.ok().filter(|count| *count > 0)
        })
        .await;
        println!("{count} of its reports were stale");
    }
    storm.finish().await?;
    Ok(())
}
