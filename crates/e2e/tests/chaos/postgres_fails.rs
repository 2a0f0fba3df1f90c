//! Postgres is killed, and its connections are cut one by one.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_testkit::stores;

use crate::storm::Storm;

#[tokio::test(flavor = "multi_thread")]
async fn and_comes_back() -> Result<()> {
    let mut storm = Storm::start().await?;
    for name in ["Postgres killed", "Postgres killed again"] {
        storm.blow(name, Leases::Kept, async |storm| storm.fleet.crash_postgres(None).await).await?;
        let cut = "Postgres' connections cut one by one";
        storm.blow(cut, Leases::Kept, async |storm| cut_sessions(storm).await).await?;
    }
    storm.finish().await?;
    Ok(())
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
