//! A message whose worker crashes again and again is set aside, visibly, and goes on when an operator says so.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::fleet::{Fleet, REPLICAS, Service};
use posthorn_e2e::{Internet, letter};
use posthorn_testkit::{stores, wait};

const TO: &str = "alice@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn is_set_aside() -> Result<()> {
    let internet = Internet::start().await?;
    let mut fleet = Fleet::start(&internet, None, &[]).await?;
    // A single worker, which gets the message and cannot put it down: it has it whenever it dies.
    for number in 1..REPLICAS {
        fleet.replica(Service::LocalDelivery, number).stop().await?;
    }
    fleet.api().send("bob@example.test", &[TO], &letter("Before", "all is well")).await?;
    fleet.api().wait_until_empty(Duration::from_secs(30)).await;
    let database = fleet.database();
    let locked = stores::locked(&database, "mailbox.delivery").await?;
    let id = fleet.api().send("bob@example.test", &[TO], &letter("Poison", "kills its worker")).await?;
    for crash in 1..=5 {
        let what = format!("lease {crash} of the message");
        wait::until(&what, Duration::from_secs(40), async || is_held(&fleet).await.then_some(())).await;
        let worker = fleet.replica(Service::LocalDelivery, 0);
        worker.kill().await?;
        wait::until("the lease to end", Duration::from_secs(40), async || {
            (!is_leased(&fleet).await).then_some(())
        })
        .await;
        println!("its worker has crashed {crash} times");
        fleet.replica(Service::LocalDelivery, 0).start()?;
    }
    wait::until("the message to be set aside", Duration::from_secs(40), async || {
        fleet.ctl(&["queue", "list", "--state", "poison"]).await.ok().filter(|list| list.contains(&id))
    })
    .await;
    println!("`ctl queue list --state poison` shows it");
    drop(locked);
    ensure!(fleet.api().list(TO).await?.len() == 1, "it was delivered all the same");
    fleet.ctl(&["queue", "retry", &id]).await?;
    fleet.api().wait_until_empty(Duration::from_secs(40)).await;
    let subjects: Vec<_> = fleet.api().list(TO).await?.into_iter().map(|message| message.subject).collect();
    ensure!(subjects == ["Before", "Poison"] || subjects == ["Poison", "Before"], "{subjects:?}");
    Ok(())
}

/// Whether the worker holds work: a batch under way has a key of its own.
async fn is_leased(fleet: &Fleet) -> bool {
    let keys = stores::keys(&fleet.redis()).await.unwrap_or_default();
    keys.iter().any(|key| key.contains("{local.") && key.contains(":batch:"))
}

/// Whether the worker holds work and does not report it. What it has in hand first it reports when Postgres loses
/// patience: that lease is in Redis for the moment that it takes to write the outcome down, and ends with one.
async fn is_held(fleet: &Fleet) -> bool {
    if !is_leased(fleet).await {
        return false;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    is_leased(fleet).await
}
