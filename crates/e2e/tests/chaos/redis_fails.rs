//! Redis is killed, emptied, refused, and swallows everything. Meanwhile mail is accepted (R2).

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::Link;
use posthorn_testkit::proxy::Flow;
use tokio::time::sleep;

use crate::storm::Storm;

const AWAY: Duration = Duration::from_secs(30);
/// The least that is accepted while it is away.
const MEANWHILE: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn and_mail_is_accepted() -> Result<()> {
    let mut storm = Storm::start().await?;
    storm.blow("Redis killed", Leases::Lost, async |storm| storm.fleet.crash_redis(false).await).await?;
    storm
        .blow("Redis killed, and empty", Leases::Lost, async |storm| storm.fleet.crash_redis(true).await)
        .await?;
    for (name, flow) in [("refuses", Flow::Refused), ("swallows everything", Flow::HalfOpen)] {
        let meanwhile = storm
            .blow(&format!("Redis {name} for 30 s"), Leases::Lost, async |storm| {
                let proxy = storm.fleet.proxy(Link::QueueRedis);
                proxy.set(flow);
                if flow == Flow::Refused {
                    proxy.cut();
                }
                sleep(AWAY).await;
                proxy.set(Flow::Passes);
                Ok(())
            })
            .await?;
        ensure!(meanwhile >= MEANWHILE, "only {meanwhile} messages were accepted while Redis {name}");
    }
    storm.finish().await?;
    Ok(())
}
