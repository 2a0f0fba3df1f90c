//! A message that kills its workers is set aside, and those that were in the same batch are delivered.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::fleet::{Fleet, Service};
use posthorn_e2e::{Internet, letter};
use posthorn_testkit::smtp_server::{At, Rule, Script, SmtpServer};
use posthorn_testkit::wait;
use tokio::time::sleep;

const OTHERS: usize = 9;
const SENDER: &str = "bob@example.test";
const SETTINGS: &[&str] = &["queue.lease.length=3s", "queue.database.statement_timeout=2s"];
/// Of the relay that has the message: what it does beside, it has done in this time.
const LIFE: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread")]
async fn in_its_batch() -> Result<()> {
    let internet = Internet::start().await?;
    let deadly = Rule::at(At::Rcpt).containing("<killer@");
    let server = internet.domain("remote.test", |script| script.rule(deadly.hangs())).await?;
    let mut fleet = Fleet::start(&internet, None, SETTINGS).await?;
    fleet.replica(Service::RemoteRelay, 1).stop().await?;
    fleet.ctl(&["queue", "suspend", "mx.remote.test"]).await?;
    let poison = fleet.api().send(SENDER, &["killer@remote.test"], &letter("Poison", "x")).await?;
    for number in 0..OTHERS {
        let to = format!("dave-{number}@remote.test");
        fleet.api().send(SENDER, &[&to], &letter(&format!("Healthy {number}"), "x")).await?;
    }
    wait::until("all to wait for the destination", Duration::from_secs(30), async || {
        let stats = fleet.api().stats().await.ok()?;
        let remote = stats.stages.iter().find(|stage| stage.stage == "remote")?;
        (remote.waiting == 1 + OTHERS as u64 && remote.leased == 0).then_some(())
    })
    .await;
    fleet.ctl(&["queue", "resume", "mx.remote.test"]).await?;
    let mut crashes = 0;
    while !is_set_aside(&fleet, &poison).await {
        if deaths(&server) > crashes {
            crashes = deaths(&server);
            ensure!(crashes <= 6, "it is not set aside after {crashes} crashes");
            sleep(LIFE).await;
            let relay = fleet.replica(Service::RemoteRelay, 0);
            relay.kill().await?;
            relay.start()?;
            println!(
                "its relay has crashed {crashes} times; {} of the others are there",
                server.messages().len()
            );
        }
        sleep(Duration::from_millis(20)).await;
    }
    wait::until("the others to be delivered", Duration::from_secs(30), async || {
        (server.messages().len() >= OTHERS).then_some(())
    })
    .await;
    let stats = fleet.api().stats().await?;
    ensure!(stats.poison == 1, "{} are set aside", stats.poison);
    server.follow(Script::named("mx.remote.test"));
    fleet.ctl(&["queue", "retry", &poison]).await?;
    fleet.api().wait_until_empty(Duration::from_secs(30)).await;
    ensure!(server.messages().len() == 1 + OTHERS, "{} came", server.messages().len());
    Ok(())
}

async fn is_set_aside(fleet: &Fleet, id: &str) -> bool {
    let list = fleet.ctl(&["queue", "list", "--state", "poison"]).await;
    list.is_ok_and(|list| list.contains(id))
}

/// How often a relay had the deadly message.
fn deaths(server: &SmtpServer) -> usize {
    server.lines().iter().filter(|line| line.contains("<killer@")).count()
}
