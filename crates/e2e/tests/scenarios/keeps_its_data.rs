//! What was accepted and delivered is there after a restart.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use posthorn_e2e::{Posthorn, letter};

const ALICE: &str = "alice@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn over_a_restart() -> Result<()> {
    let mut posthorn = Posthorn::start().await?;
    let content = letter("Before", "the restart");
    let id = posthorn.send("carol@elsewhere.test", &[ALICE], &content).await?;
    let before = posthorn.wait_for_mail(ALICE, 1).await?;
    posthorn.ctl(&["account", "create", "erin@example.test"]).await?;

    posthorn.stop().await?;
    let start = Instant::now();
    posthorn.start_again().await?;
    let taken = start.elapsed();
    println!("the second start took {taken:?}");
    // 5 s on a machine that does nothing else.
    ensure!(taken < Duration::from_secs(15), "the second start took {taken:?}");

    let after = posthorn.wait_for_mail(ALICE, 1).await?;
    ensure!(after.len() == 1 && after[0].raw == before[0].raw && after[0].summary == before[0].summary);
    ensure!(posthorn.trace(&id).await?.pending == 0);
    posthorn.send("carol@elsewhere.test", &["erin@example.test"], &content).await?;
    posthorn.wait_for_mail("erin@example.test", 1).await?;
    posthorn.stop().await
}
