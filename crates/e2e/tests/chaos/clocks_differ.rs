//! The clock of one replica of the queue is an hour ahead of all others, and then an hour behind.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::{Link, REPLICAS, Service};
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
        let queue = storm.fleet.replica(Service::Queue, 0);
        clock.govern(queue).await?;
        queue.ready(Duration::from_secs(60)).await;
        // All have gone to the other one: half of them come back.
        for link in [Link::IngressQueue, Link::WorkersQueue] {
            storm.fleet.proxy(link).cut();
        }
        // Some of the mail is put off meanwhile, by either queue, and is not to be later for it.
        storm.server.follow(busy(60));
        let before = at_work(&mut storm).await?;
        storm
            .blow(&format!("the clock of queue-0 at {offset}"), Leases::Kept, async |_| {
                sleep(HARM).await;
                Ok(())
            })
            .await?;
        let after = at_work(&mut storm).await?;
        println!("accepted, and leased, by each queue: {before:?}, then {after:?}");
        let all = before.iter().flatten().zip(after.iter().flatten()).all(|(before, after)| after > before);
        ensure!(all, "a queue had nothing to do: its clock does not matter");
    }
    // Nobody sets it right before the end.
    storm.finish().await?;
    Ok(())
}

/// How many messages each replica of the queue has accepted, and how many items it has leased.
async fn at_work(storm: &mut Storm) -> Result<Vec<[u64; 2]>> {
    let mut counts = Vec::new();
    for number in 0..REPLICAS {
        let queue = storm.fleet.replica(Service::Queue, number);
        let accepted = queue.counted("posthorn_queue_accepted_total").await?;
        counts.push([accepted, queue.counted("posthorn_queue_leased_total").await?]);
    }
    Ok(counts)
}
