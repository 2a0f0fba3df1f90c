//! With `--processes` each service is a process, and one that dies is started again; so are the stores.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use posthorn_e2e::{Options, Posthorn, letter};
use posthorn_testkit::wait;

const SERVICES: [(&str, u16); 5] =
    [("ingress", 7001), ("queue", 7002), ("router", 7003), ("local-delivery", 7004), ("remote-relay", 7005)];

#[tokio::test(flavor = "multi_thread")]
async fn and_says_which() -> Result<()> {
    let mut posthorn = Posthorn::start_with(Options { processes: true, ..Options::default() }).await?;
    let pids: Vec<_> = SERVICES.iter().map(|(name, _)| posthorn.pid_of(name)).collect();
    let mut distinct = pids.iter().flatten().collect::<Vec<_>>();
    distinct.sort();
    distinct.dedup();
    ensure!(distinct.len() == SERVICES.len(), "{pids:?}");
    for (name, port) in SERVICES {
        posthorn.crash(name).await.context(name)?;
        wait::until(&format!("{name} to be ready"), Duration::from_secs(30), async || {
            posthorn.is_ready(port).await.then_some(())
        })
        .await;
    }
    posthorn.end_redis().await?;
    posthorn.end_postgres()?;
    let (from, to) = ("carol@elsewhere.test", ["alice@example.test"]);
    wait::until("mail to be taken again", Duration::from_secs(30), async || {
        posthorn.send(from, &to, &letter("While", "the stores came back")).await.ok()
    })
    .await;
    posthorn.wait_for_mail("alice@example.test", 1).await?;
    posthorn.send("carol@elsewhere.test", &["alice@example.test"], &letter("After", "all died")).await?;
    posthorn.wait_for_mail("alice@example.test", 2).await?;
    // Mail went through while some had not yet met Postgres on each of their connections again.
    wait::until("all to be healthy", Duration::from_secs(30), async || posthorn.ctl(&["health"]).await.ok())
        .await;
    let last: Vec<_> = SERVICES.iter().filter_map(|(name, _)| posthorn.pid_of(name)).collect();
    posthorn.stop().await?;
    for pid in last {
        ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} runs on");
    }
    Ok(())
}
