//! Redis and Postgres are killed, cut off, emptied, filled up.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::fleet::Link;
use posthorn_testkit::proxy::Flow;
use posthorn_testkit::stores;
use tokio::time::{sleep, timeout};

use crate::disk::Disk;
use crate::storm::Storm;

#[tokio::test(flavor = "multi_thread")]
async fn redis() -> Result<()> {
    let mut storm = Storm::start(None).await?;
    storm.blow("Redis killed", async |storm| storm.fleet.crash_redis(false).await).await?;
    storm.blow("Redis killed, and empty", async |storm| storm.fleet.crash_redis(true).await).await?;
    storm
        .blow("Redis away for 30 s", async |storm| {
            let proxy = storm.fleet.proxy(Link::QueueRedis);
            proxy.set(Flow::Refused);
            proxy.cut();
            sleep(Duration::from_secs(30)).await;
            proxy.set(Flow::Passes);
            Ok(())
        })
        .await?;
    storm.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() -> Result<()> {
    let mut storm = Storm::start(None).await?;
    storm.blow("Postgres killed", async |storm| storm.fleet.crash_postgres(None).await).await?;
    storm.blow("Postgres' connections cut one by one", async |storm| cut_sessions(storm).await).await?;
    storm.blow("Postgres killed again", async |storm| storm.fleet.crash_postgres(None).await).await?;
    storm.finish().await
}

async fn cut_sessions(storm: &mut Storm) -> Result<()> {
    let database = storm.fleet.database();
    let ours = "SELECT pid::bigint FROM pg_stat_activity WHERE usename LIKE 'posthorn%'";
    for pid in stores::numbers(&database, ours).await? {
        // It may have ended meanwhile.
        let cut = format!("SELECT pg_terminate_backend({pid})::int::bigint");
        stores::numbers(&database, &cut).await?;
        storm.load.accepts(1, Duration::from_secs(60)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() -> Result<()> {
    let Some(disk) = Disk::mount()? else { return Ok(()) };
    let directory = disk.path().join("postgres");
    let mut storm = Storm::start(Some(&directory)).await?;
    for _ in 0..2 {
        storm
            .blow("Postgres' disk full for 10 s", async |storm| {
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
    storm.finish().await
}
