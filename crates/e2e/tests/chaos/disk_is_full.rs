//! The disk of Postgres is full for a while.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_testkit::stores;
use tokio::time::{sleep, timeout};

use crate::disk::Disk;
use crate::storm::{Setup, Storm};

#[tokio::test(flavor = "multi_thread")]
async fn for_a_while() -> Result<()> {
    let disk = Disk::mount()?;
    let directory = disk.path().join("postgres");
    let mut storm =
        Storm::start_with(Setup { postgres: Some(directory.clone()), ..Setup::default() }).await?;
    for _ in 0..2 {
        storm
            .blow("Postgres' disk full for 10 s", Leases::Kept, async |storm| {
                disk.fill()?;
                sleep(Duration::from_secs(10)).await;
                disk.free()?;
                let database = storm.fleet.database();
                let answers = stores::numbers(&database, "SELECT 1::bigint");
                // Without room for its log Postgres ends: an operator starts it again.
                if !matches!(timeout(Duration::from_secs(5), answers).await, Ok(Ok(_))) {
                    println!("Postgres has ended, and is started again");
                    storm.fleet.crash_postgres(Some(&directory)).await?;
                }
                Ok(())
            })
            .await?;
    }
    storm.finish().await?;
    Ok(())
}
