//! The clock of one replica of the queue is an hour ahead of all others, and then an hour behind.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::Service;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::storm::{Storm, busy};

const HARM: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn among_the_queues() -> Result<()> {
    let mut storm = Storm::start().await?;
    let clock = Clock::new(&storm.fleet.data())?;
    for offset in ["+1h", "-1h"] {
        clock.set(offset)?;
        clock.govern(storm.fleet.replica(Service::Queue, 0)).await?;
        // Some of the mail is put off meanwhile, by either queue, and is not to be later for it.
        storm.server.follow(busy(60));
        storm
            .blow(&format!("the clock of queue-0 at {offset}"), Leases::Kept, async |_| {
                sleep(HARM).await;
                Ok(())
            })
            .await?;
    }
    // Nobody sets it right before the end.
    storm.finish().await?;
    Ok(())
}
