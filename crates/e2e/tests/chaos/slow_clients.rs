//! Two hundred clients that send a byte a second keep nobody else out.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::account::Leases;
use posthorn_testkit::smtp_client::SmtpClient;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::storm::Storm;

const SLOW: usize = 200;
const HARM: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn keep_nobody_out() -> Result<()> {
    let mut storm = Storm::start().await?;
    let before = rate(&storm, Duration::from_secs(8)).await;
    let mut slow = JoinSet::new();
    for _ in 0..SLOW {
        let (mut client, _) = SmtpClient::connect(storm.fleet.api().smtp).await?;
        client.expect("EHLO slow.test", 250).await?;
        client.expect("MAIL FROM:<bob@example.test>", 250).await?;
        client.expect("RCPT TO:<alice@example.test>", 250).await?;
        client.expect("DATA", 354).await?;
        slow.spawn(async move {
            loop {
                client.send(b"x").await?;
                sleep(Duration::from_secs(1)).await;
            }
            #[expect(unreachable_code, reason = "it says what the task fails with")]
            anyhow::Ok(())
        });
    }
    let mut meanwhile = 0.0;
    storm
        .blow(&format!("{SLOW} clients that send a byte a second"), Leases::Kept, async |storm| {
            meanwhile = rate(storm, HARM).await;
            Ok(())
        })
        .await?;
    ensure!(slow.try_join_next().is_none(), "a slow client was thrown out");
    slow.abort_all();
    let after = rate(&storm, Duration::from_secs(8)).await;
    println!("{before:.0} messages/s before them, {meanwhile:.0} with them, {after:.0} after them");
    // What else the machine does is not their fault.
    ensure!(meanwhile > before.min(after) / 2.0, "they keep others out");
    storm.finish().await?;
    Ok(())
}

async fn rate(storm: &Storm, length: Duration) -> f64 {
    let (from, before) = (Instant::now(), storm.load.accepted());
    sleep(length).await;
    (storm.load.accepted() - before) as f64 / from.elapsed().as_secs_f64()
}
