//! A process that is stopped for longer than its lease wakes up and reports what others have done meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::{REPLICAS, Service};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::storm::Storm;

/// The fleet's leases last 10 s.
const PAST_THE_LEASE: Duration = Duration::from_secs(13);
const ATTEMPTS: usize = 4;

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
        let first = storm.any();
        let Some(stale) = stale else {
            sleeps(&mut storm, service, first).await?;
            continue;
        };
        // Work need not come to each replica alike: if the one had none in its hands, the other has.
        let mut count = 0;
        for number in (first..).map(|number| number % REPLICAS).take(ATTEMPTS) {
            sleeps(&mut storm, service, number).await?;
            count = was_stale(&mut storm, service, number, stale).await?;
            if count > 0 {
                println!("{count} of its reports were stale");
                break;
            }
        }
        ensure!(count > 0, "no {} has reported anything too late", service.name());
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
