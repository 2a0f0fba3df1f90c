//! An operator holds, releases and retries messages at random, whatever is being done to them, and while services die.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::Service;
use tokio::time::sleep;

use crate::operator::Operator;
use crate::storm::{Setup, Storm, busy};

const LENGTH: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn with_whatever_waits() -> Result<()> {
    // Much is put off, so that something waits.
    let mut storm = Storm::start_with(Setup { server: busy(500), ..Setup::default() }).await?;
    let operator = Operator::start(storm.fleet.api(), storm.random.clone());
    sleep(LENGTH).await;
    for (service, leases) in [
        (Service::Queue, Leases::Kept),
        (Service::RemoteRelay, Leases::Lost),
        (Service::Router, Leases::Kept),
        (Service::LocalDelivery, Leases::Kept),
    ] {
        let number = storm.any();
        storm.server.follow(busy(150));
        storm
            .blow(&format!("kill -9 of {}-{number}", service.name()), leases, async |storm| {
                let replica = storm.fleet.replica(service, number);
                replica.kill().await?;
                replica.start()
            })
            .await?;
        sleep(LENGTH).await;
    }
    let touched = operator.stop().await?;
    println!("messages touched: {touched:?}");
    for operation in ["held", "released", "retried"] {
        ensure!(touched.get(operation).is_some_and(|count| *count >= 10), "too few {operation}");
    }
    storm.finish().await?;
    Ok(())
}
