//! The sweep for work that is missing in the schedule leaves alone what is there, leased or not, and finds what is not.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::fleet::{Fleet, REPLICAS, Service};
use posthorn_e2e::load::Pace;
use posthorn_e2e::{Internet, letter};
use posthorn_testkit::smtp_server::{At, Rule};
use posthorn_testkit::{stores, wait};
use tokio::time::sleep;

use crate::storm::{Setup, Storm, usual};

/// Also counted: what changes between a sweep's look at the ledger and its look at the schedule. No harm comes of it.
const SWEPT: &str = "posthorn_queue_swept_total";
/// Every transfer takes this long: it is overdue while it is leased.
const TRANSFER: Duration = Duration::from_millis(800);
const SETTINGS: &[&str] = &["queue.sweep.every=100ms", "queue.sweep.overdue=400ms"];
const LENGTH: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn under_load() -> Result<()> {
    let slow = usual().rule(Rule::at(At::EndOfData).waits(TRANSFER));
    let pace = Pace { pause: Duration::from_millis(350), large: 30 };
    let mut storm =
        Storm::start_with(Setup { set: SETTINGS, pace, server: slow, ..Setup::default() }).await?;
    sleep(LENGTH).await;
    let swept = storm.fleet.counted(Service::Queue, SWEPT).await?;
    println!("{swept} found missing by sweeps for what is overdue by 400 ms");
    // Now also what is between the ledger's commit and the schedule.
    for number in 0..REPLICAS {
        let replica = storm.fleet.replica(Service::Queue, number);
        replica.set.push("queue.sweep.overdue=0s".into());
        replica.stop().await?;
        replica.start()?;
        replica.ready(Duration::from_secs(60)).await;
    }
    sleep(LENGTH).await;
    let swept = storm.fleet.counted(Service::Queue, SWEPT).await?;
    println!("{swept} found missing by sweeps for all that is due");
    // No harm was done that could excuse a second copy.
    storm.finish().await?;
    Ok(())
}

const WAITING: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn and_find_what_fell_out_of_it() -> Result<()> {
    let internet = Internet::start().await?;
    let server = internet.domain("remote.test", |script| script).await?;
    let slow = Rule::at(At::EndOfData).waits(Duration::from_millis(4500));
    let slow = internet.domain("slow.test", |script| script.rule(slow)).await?;
    let fleet = Fleet::start(&internet, None, SETTINGS).await?;
    fleet.ctl(&["queue", "suspend", "mx.remote.test"]).await?;
    for number in 0..WAITING {
        let to = format!("dave-{number}@remote.test");
        fleet.api().send("bob@example.test", &[&to], &letter(&format!("Waiting {number}"), "x")).await?;
    }
    wait::until("all to wait for the destination", Duration::from_secs(30), async || {
        let stats = fleet.api().stats().await.ok()?;
        let remote = stats.stages.iter().find(|stage| stage.stage == "remote")?;
        (remote.waiting == WAITING as u64 && remote.leased == 0).then_some(())
    })
    .await;
    fleet.api().send("bob@example.test", &["erin@slow.test"], &letter("Slow", "x")).await?;
    slow.received(1).await;
    // Now nothing changes, and all that there is comes to be overdue.
    let before = fleet.counted(Service::Queue, SWEPT).await?;
    sleep(Duration::from_secs(3)).await;
    let swept = fleet.counted(Service::Queue, SWEPT).await?;
    ensure!(swept == before, "{} were taken for missing that wait in line, or are leased", swept - before);
    let forgotten = stores::forget(&fleet.redis(), ["{remote.", ":ready:"]).await?;
    ensure!(forgotten == 1, "{forgotten} lanes were ready");
    fleet.ctl(&["queue", "resume", "mx.remote.test"]).await?;
    fleet.api().wait_until_empty(Duration::from_secs(30)).await;
    ensure!(server.messages().len() == WAITING, "{} came", server.messages().len());
    ensure!(slow.messages().len() == 1, "what was leased was sent {} times", slow.messages().len());
    let swept = fleet.counted(Service::Queue, SWEPT).await?;
    ensure!(swept >= before + WAITING as u64, "{} of {WAITING} were found missing", swept - before);
    Ok(())
}
