//! kill -9 of each service, and of several at once.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::Service;

use crate::storm::Storm;

#[tokio::test(flavor = "multi_thread")]
async fn each_in_turn_and_several_at_once() -> Result<()> {
    let mut storm = Storm::start().await?;
    for service in Service::ALL {
        let number = storm.any();
        kill(&mut storm, &[(service, number)]).await?;
    }
    use Service::{Ingress, LocalDelivery, Queue, RemoteRelay, Router};
    kill(&mut storm, &[(Queue, 0), (Queue, 1)]).await?;
    kill(&mut storm, &[(LocalDelivery, 0), (LocalDelivery, 1), (Router, 0)]).await?;
    kill(&mut storm, &[(RemoteRelay, 0), (RemoteRelay, 1), (Queue, 0), (Ingress, 1)]).await?;
    let all: Vec<_> = Service::ALL.into_iter().flat_map(|service| [(service, 0), (service, 1)]).collect();
    kill(&mut storm, &all).await?;
    storm.finish().await?;
    Ok(())
}

/// Messages after each blow: more than 2,000 in all.
const MESSAGES: usize = 230;

async fn kill(storm: &mut Storm, victims: &[(Service, usize)]) -> Result<()> {
    let names: Vec<_> =
        victims.iter().map(|(service, number)| format!("{}-{number}", service.name())).collect();
    let name = format!("kill -9 of {}", names.join(", "));
    // What only the relay knows dies with it; what the queue knows is in the stores.
    let relay = victims.iter().any(|(service, _)| *service == Service::RemoteRelay);
    storm
        .blow(&name, if relay { Leases::Lost } else { Leases::Kept }, async |storm| {
            for (service, number) in victims {
                storm.fleet.replica(*service, *number).kill().await?;
            }
            for (service, number) in victims {
                storm.fleet.replica(*service, *number).start()?;
            }
            Ok(())
        })
        .await?;
    storm.load.accepts(MESSAGES, Duration::from_secs(60)).await;
    Ok(())
}
