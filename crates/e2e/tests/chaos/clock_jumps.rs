//! The clock of the services is set forward and back by an hour while mail flows.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::fleet::Service;
use tokio::time::sleep;

use crate::storm::Storm;

/// Of Debian's package `libfaketime`: it tells a process another time of day.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[tokio::test(flavor = "multi_thread")]
async fn by_an_hour() -> Result<()> {
    if !PathBuf::from(LIBRARY).exists() {
        println!("SKIPPED: the clock: {LIBRARY} is missing (apt-get install libfaketime)");
        return Ok(());
    }
    let mut storm = Storm::start(None).await?;
    let clock = storm.fleet.data().join("clock");
    std::fs::write(&clock, "+0")?;
    for service in Service::ALL {
        for number in 0..posthorn_e2e::fleet::REPLICAS {
            let replica = storm.fleet.replica(service, number);
            replica.environment = vec![
                ("LD_PRELOAD".into(), LIBRARY.into()),
                ("FAKETIME_TIMESTAMP_FILE".into(), clock.display().to_string()),
                ("FAKETIME_NO_CACHE".into(), "1".into()),
                // A clock that is set leaves the one that counts seconds alone.
                ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
            ];
            replica.stop().await?;
            replica.start()?;
        }
    }
    storm.fleet.all_ready(Duration::from_secs(60)).await;
    // Forward once more at the end: what was put off while it was later is due then, an hour late but not lost.
    for (name, offset) in [
        ("forward", "+1h"),
        ("right", "+0"),
        ("back", "-1h"),
        ("right again", "+0"),
        ("forward again", "+1h"),
    ] {
        storm
            .blow(&format!("the clock set {name}"), async |_| {
                std::fs::write(&clock, offset)?;
                sleep(Duration::from_secs(5)).await;
                Ok(())
            })
            .await?;
    }
    storm.finish().await
}
