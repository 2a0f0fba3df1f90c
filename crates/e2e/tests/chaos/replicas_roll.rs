//! All services are restarted one replica after another: no SMTP client sees more than a 421, and no program more than
//! UNAVAILABLE.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::{REPLICAS, Service};
use posthorn_e2e::load::{Answer, Pace, Sent};

use crate::storm::{Setup, Storm};

#[tokio::test(flavor = "multi_thread")]
async fn one_after_another() -> Result<()> {
    // Many of them large: they are on their way for a while.
    let pace = Pace { pause: Duration::from_millis(60), large: 4 };
    let mut storm = Storm::start_with(Setup { pace, ..Setup::default() }).await?;
    for service in Service::ALL {
        for number in 0..REPLICAS {
            storm
                .blow(&format!("restart of {}-{number}", service.name()), Leases::Kept, async |storm| {
                    let replica = storm.fleet.replica(service, number);
                    replica.stop().await?;
                    replica.start()?;
                    replica.ready(Duration::from_secs(60)).await;
                    Ok(())
                })
                .await?;
        }
    }
    let worse = |sent: &Sent| match sent.answer {
        Answer::Accepted(_) | Answer::Leaving => false,
        Answer::NotNow(_) => !sent.by_program,
        Answer::Refused(_) | Answer::Broken(_) | Answer::Unknown => true,
    };
    let worse: Vec<_> = storm.finish().await?.into_iter().filter(worse).collect();
    ensure!(worse.is_empty(), "clients saw more than a 421: {worse:#?}");
    Ok(())
}
