//! The DNS says nothing, says nonsense, or is slow.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_testkit::dns::Trouble;
use tokio::time::sleep;

use crate::storm::{Setup, Storm};

const HARM: Duration = Duration::from_secs(4);
const NAMES: [&str; 2] = ["remote.test", "mx.remote.test"];
const SETTINGS: &[&str] =
    &["router.dns.timeout=1s", "router.dns.trouble=1s", "router.dns.cache_longest_negative=1s"];

#[tokio::test(flavor = "multi_thread")]
async fn for_a_while() -> Result<()> {
    let mut storm = Storm::start_with(Setup { set: SETTINGS, ..Setup::default() }).await?;
    for trouble in [Trouble::Silent, Trouble::ServFail, Trouble::Refused] {
        storm
            .blow(&format!("RouterDns: {trouble:?}"), Leases::Kept, async |storm| {
                for name in NAMES {
                    storm.internet.dns.trouble(name, trouble);
                }
                sleep(HARM).await;
                for name in NAMES {
                    storm.internet.dns.recover(name);
                }
                Ok(())
            })
            .await?;
    }
    storm
        .blow("RouterDns: slow", Leases::Kept, async |storm| {
            storm.internet.dns.delay(Duration::from_millis(1500));
            sleep(HARM).await;
            storm.internet.dns.delay(Duration::ZERO);
            Ok(())
        })
        .await?;
    storm.finish().await?;
    Ok(())
}
