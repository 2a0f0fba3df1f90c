//! A client sends 2 GB where 50 MiB are allowed: it is told so, and nobody's memory grows.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use posthorn_e2e::Internet;
use posthorn_e2e::fleet::{Fleet, REPLICAS, Service};
use posthorn_testkit::smtp_client::SmtpClient;

const SIZE: usize = 2 << 30;
/// What a message of less than 50 MiB on its way may take in all.
const GROWTH: u64 = 40 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn is_refused_with_memory_flat() -> Result<()> {
    let internet = Internet::start().await?;
    let mut fleet = Fleet::start(&internet, None, &[]).await?;
    let (mut client, _) = SmtpClient::connect(fleet.api().smtp).await?;
    client.expect("EHLO client.test", 250).await?;
    client.expect("MAIL FROM:<bob@example.test>", 250).await?;
    client.expect("RCPT TO:<alice@example.test>", 250).await?;
    client.expect("DATA", 354).await?;
    let before = memory(&mut fleet)?;
    let mut most = before;
    let block =
        "a line of a message that has no end, or none that anyone would wait for ......\r\n".repeat(13_000);
    for number in 0..SIZE / block.len() + 1 {
        client.send(block.as_bytes()).await?;
        if number % 20 == 0 {
            most = most.max(memory(&mut fleet)?);
        }
    }
    client.send(b".\r\n").await?;
    let reply = client.reply().await?;
    println!("{reply:?}; ingress and queue had {} MiB before and {} at most", before >> 20, most >> 20);
    ensure!(reply.code == 552, "{reply:?}");
    ensure!(most < before + GROWTH, "memory has grown");
    fleet.api().wait_until_empty(Duration::from_secs(30)).await;
    ensure!(fleet.api().list("alice@example.test").await?.is_empty(), "it was delivered");
    Ok(())
}

/// The resident memory of all replicas of ingress and queue, in bytes.
fn memory(fleet: &mut Fleet) -> Result<u64> {
    let mut sum = 0;
    for service in [Service::Ingress, Service::Queue] {
        for number in 0..REPLICAS {
            let pid = fleet.replica(service, number).pid().context("it runs")?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
            let kib: u64 = resident.trim().trim_end_matches(" kB").trim().parse()?;
            sum += kib << 10;
        }
    }
    Ok(sum)
}
