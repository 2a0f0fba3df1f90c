//! The connections between each two parties are cut, hold everything back, become slow, and lead nowhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::Api;
use posthorn_e2e::account::Leases;
use posthorn_e2e::fleet::Link;
use posthorn_testkit::proxy::{Flow, Proxy};
use posthorn_testkit::wait;
use tokio::time::{sleep, timeout};

use crate::storm::{Setup, Storm};

const HARM: Duration = Duration::from_millis(2500);
/// Less than that: what is held back is held back for longer than anyone waits.
const SETTINGS: &[&str] = &[
    "queue.database.statement_timeout=2s",
    "router.database.statement_timeout=2s",
    "local_delivery.database.statement_timeout=2s",
];

#[tokio::test(flavor = "multi_thread")]
async fn between_each_two_parties() -> Result<()> {
    let mut storm = Storm::start_with(Setup { set: SETTINGS, ..Setup::default() }).await?;
    let reader = Reader::start(storm.fleet.api());
    for link in Link::ALL.into_iter().filter(|link| *link != Link::Operators) {
        for fault in FAULTS {
            let (name, leases) = (format!("{link:?}: {fault:?}"), leases(link, fault));
            storm
                .blow(&name, leases, async |storm| {
                    let proxy = storm.fleet.proxy(link);
                    harm(proxy, fault).await?;
                    // The test's own clients would wait for longer than this test.
                    if fault == Flow::HalfOpen && !Link::WITHIN.contains(&link) {
                        proxy.cut();
                    }
                    Ok(())
                })
                .await?;
            reader.reads_on().await;
        }
    }
    for fault in FAULTS {
        let name = format!("RelayRemote: {fault:?}");
        storm.blow(&name, Leases::Kept, async |storm| harm(&storm.to_server, fault).await).await?;
    }
    storm.finish().await?;
    Ok(())
}

/// `Passes`: cut while it does.
const FAULTS: [Flow; 4] = [Flow::Passes, Flow::Held, Flow::Slow(20_000), Flow::HalfOpen];

/// A lease outlasts all but a connection of which nobody sees that it leads nowhere.
fn leases(link: Link, fault: Flow) -> Leases {
    match (link, fault) {
        (Link::WorkersQueue, Flow::HalfOpen) => Leases::LostUntilNoticed,
        _ => Leases::Kept,
    }
}

async fn harm(proxy: &Proxy, fault: Flow) -> Result<()> {
    if fault == Flow::Passes {
        for _ in 0..4 {
            proxy.cut();
            sleep(HARM / 4).await;
        }
        return Ok(());
    }
    proxy.set(fault);
    sleep(HARM).await;
    proxy.set(Flow::Passes);
    Ok(())
}

/// Somebody who looks into a mailbox again and again.
struct Reader {
    reads: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Reader {
    fn start(api: &Api) -> Self {
        let (api, reads) = (api.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = reads.clone();
        let task = tokio::spawn(async move {
            loop {
                let read = timeout(Duration::from_secs(2), api.list("dora@example.test")).await;
                counted.fetch_add(usize::from(matches!(read, Ok(Ok(_)))), Ordering::Relaxed);
                sleep(Duration::from_millis(100)).await;
            }
        });
        Self { reads, task }
    }

    async fn reads_on(&self) {
        let before = self.reads.load(Ordering::Relaxed);
        wait::until("the reader to see a mailbox", Duration::from_secs(30), async || {
            // One may have been on its way.
            (self.reads.load(Ordering::Relaxed) > before + 1).then_some(())
        })
        .await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}
