//! A process that is stopped for longer than its lease wakes up and reports what others have done meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::Service;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::storm::Storm;

/// The fleet's leases last 10 s.
const PAST_THE_LEASE: Duration = Duration::from_secs(13);
const ATTEMPTS: usize = 3;

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
        sleeps(&mut storm, service, number).await?;
        let Some(stale) = stale else { continue };
        // It is asleep with work in its hands, if not at the first instant then at another.
        for _ in 1..ATTEMPTS {
            if was_stale(&mut storm, service, number, stale).await? > 0 {
                break;
            }
            sleeps(&mut storm, service, number).await?;
        }
        let count = was_stale(&mut storm, service, number, stale).await?;
        ensure!(count > 0, "{}-{number} has not reported anything too late", service.name());
        println!("{count} of its reports were stale");
    }
    storm.finish().await?;
    Ok(())
}

async fn sleeps(storm: &mut Storm, service: Service, number: usize) -> Result<()> {
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
    Ok(())
}

/// What the worker was told, when it has had the time to report.
async fn was_stale(storm: &mut Storm, service: Service, number: usize, counter: &str) -> Result<u64> {
    for _ in 0..20 {
        let count = storm.fleet.replica(service, number).counted(counter).await?;
        if count > 0 {
            return Ok(count);
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(0)
}
