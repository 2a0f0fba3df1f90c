//! How fast copies are delivered: `cargo test --release -p posthorn-local-delivery measures -- --ignored --nocapture`.
//! On a Postgres that waits for the disk, as in production.

use std::time::Instant;

use posthorn_api::work::v1::Batch;
use posthorn_mail::MessageId;
use posthorn_stores::{Durability, Postgres};
use uuid::Uuid;

use crate::world::{Heard, World, batch, item, recipient};

const BATCH: usize = 256;

/// Batches for these mailboxes in turn. Delivery does not read contents: there are none.
fn batches(accounts: &[Uuid], copies: usize) -> Vec<Batch> {
    let mut next = (0..copies)
        .map(|n| item(MessageId::generate(), 4096, vec![recipient(0, accounts[n % accounts.len()])]));
    (0..copies.div_ceil(BATCH)).map(|_| batch(next.by_ref().take(BATCH).collect())).collect()
}

/// Keeps four batches in flight until all are reported; copies a second.
async fn rate(world: &mut World, accounts: &[Uuid], copies: usize) -> f64 {
    let mut waiting = batches(accounts, copies).into_iter();
    let started = Instant::now();
    let mut open = 0;
    let mut reported = 0;
    while reported < copies {
        while open < 4 * BATCH
            && let Some(batch) = waiting.next()
        {
            open += batch.items.len();
            world.queue.send(batch).await;
        }
        if let Heard::Report(report) = world.queue.heard().await {
            open -= report.items.len();
            reported += report.items.len();
        }
    }
    copies as f64 / started.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for a release build on a quiet machine"]
async fn measures_copies_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let port = posthorn_stores::free_port().unwrap();
    let postgres = Postgres::start(directory.path(), port, Durability::Full).unwrap();
    let mut world = World::on(postgres.url("postgres", "postgres"), |_| ()).await;
    for mailboxes in [1, 10, 1000, 1, 1000] {
        let accounts: Vec<Uuid> = (0..mailboxes).map(|_| Uuid::now_v7()).collect();
        rate(&mut world, &accounts, 2000.max(mailboxes)).await;
        let rate = rate(&mut world, &accounts, 50_000).await;
        println!("{mailboxes:5} mailboxes: {rate:.0} copies/s");
    }
}
