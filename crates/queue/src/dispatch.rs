//! Giving work out: credits in, batches out. One loop a worker's stream; it sleeps until there is work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::OptionFuture;
use posthorn_api::work::v1::{Batch, WorkResponse, work_response::Response};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::hub::Hub;
use crate::load;
use crate::schedule::{Ask, Kind, Leased, Leasing, Settle, Then, Token};

/// Batches of a worker that are remembered before those that have their outcomes are forgotten.
const REMEMBERED: usize = 256;

/// A worker at the other end of a stream.
pub(crate) struct Worker {
    pub(crate) kind: Kind,
    /// For logs.
    pub(crate) name: String,
    /// The most items in a batch.
    pub(crate) max_batch: u32,
    /// Batches that it can take.
    pub(crate) credits: Semaphore,
    /// Batches that it has been given and not reported whole.
    pub(crate) given: Mutex<Vec<Token>>,
    pub(crate) out: mpsc::Sender<Result<WorkResponse, Status>>,
    /// It has ended its side: it wants nothing more.
    pub(crate) gone: CancellationToken,
}

/// Gives the worker batches until its stream ends or the service is to stop.
pub(crate) async fn serve(hub: Arc<Hub>, worker: Arc<Worker>) {
    let mut wake = hub.wake.watch(worker.kind);
    let mut first_partition = 0;
    loop {
        let credit = tokio::select! {
            biased;
            () = over(&hub, &worker) => return,
            credit = worker.credits.acquire() => credit,
        };
        let Ok(credit) = credit else { return };
        let turn = tokio::select! {
            biased;
            () = over(&hub, &worker) => return,
            turn = OptionFuture::from(hub.wake.turn(worker.kind).map(|line| line.lock())) => turn,
        };
        let batch = next_batch(&hub, &worker, &mut wake, &mut first_partition).await;
        drop(turn);
        let Some(batch) = batch else { return };
        credit.forget();
        let response = WorkResponse { response: Some(Response::Batch(batch)) };
        if worker.out.send(Ok(response)).await.is_err() {
            return;
        }
    }
}

async fn unless_over(hub: &Hub, worker: &Worker, pause: impl Future<Output = ()>) -> Option<()> {
    tokio::select! {
        () = pause => Some(()),
        () = over(hub, worker) => None,
    }
}

/// Ends when no more is to be given to the worker.
async fn over(hub: &Hub, worker: &Worker) {
    tokio::select! {
        () = worker.out.closed() => {}
        () = worker.gone.cancelled() => {}
        () = hub.shutdown.cancelled() => {}
    }
}

/// The next batch, whenever there is one; `None` when no more is to be given. Only its pauses are broken off: what has
/// just been leased would be nobody's until the lease ends.
async fn next_batch(
    hub: &Hub,
    worker: &Worker,
    wake: &mut watch::Receiver<()>,
    first_partition: &mut u16,
) -> Option<Batch> {
    let mut pause = Duration::from_millis(50);
    loop {
        // Marked as seen before looking: what comes between wakes at once.
        wake.borrow_and_update();
        match lease(hub, worker, first_partition).await {
            Ok(Leasing::Batch(leased)) => match give(hub, worker, leased).await {
                Ok(Some(batch)) => return Some(batch),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, worker = worker.name, "work could not be read, trying again in {pause:?}");
                    unless_over(hub, worker, tokio::time::sleep(pause)).await?;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            },
            Ok(Leasing::Nothing(next)) => {
                pause = Duration::from_millis(50);
                unless_over(hub, worker, wait(wake, next)).await?;
            }
            Ok(Leasing::Empty) => {
                hub.recover.notify_one();
                // Whoever fills it wakes all.
                let next = OffsetDateTime::now_utc() + Duration::from_secs(1);
                unless_over(hub, worker, wait(wake, Some(next))).await?;
            }
            Err(error) => {
                hub.redis_failed(&error);
                unless_over(hub, worker, tokio::time::sleep(pause)).await?;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
    }
}

/// Sleeps until woken, or until `next`; a minute at most, should a wake be lost with the connection it came by.
async fn wait(wake: &mut watch::Receiver<()>, next: Option<OffsetDateTime>) {
    let longest = Duration::from_secs(60);
    let left = next.map_or(longest, |at| {
        // A millisecond more: times in the schedule are cut to one.
        Duration::try_from(at - OffsetDateTime::now_utc()).unwrap_or_default() + Duration::from_millis(1)
    });
    let _ = tokio::time::timeout(left.min(longest), wake.changed()).await;
}

/// Leases from the partitions in turn.
async fn lease(hub: &Hub, worker: &Worker, first_partition: &mut u16) -> redis::RedisResult<Leasing> {
    let now = OffsetDateTime::now_utc();
    let ask = Ask {
        now,
        until: now + hub.config.lease.length,
        most: worker.max_batch,
        concurrency: if worker.kind == Kind::Remote { hub.config.destination.concurrency } else { 0 },
    };
    let partitions = hub.schedule.partitions();
    let count = partitions.len() as u16;
    let mut next: Option<OffsetDateTime> = None;
    for partition in partitions {
        let partition = (*first_partition + partition) % count;
        match hub.schedule.lease(worker.kind, partition, &ask).await? {
            Leasing::Nothing(at) => next = next.into_iter().chain(at).min(),
            other => {
                *first_partition = (partition + 1) % count;
                return Ok(other);
            }
        }
    }
    Ok(Leasing::Nothing(next))
}

/// Makes a batch out of leased items; what cannot be worked on goes back to where it belongs. `None`: nothing is left.
async fn give(hub: &Hub, worker: &Worker, leased: Leased) -> sqlx::Result<Option<Batch>> {
    let now = OffsetDateTime::now_utc();
    let token = leased.token;
    let loaded = match load::load(hub, &leased, now).await {
        Ok(loaded) => loaded,
        Err(error) => {
            // They need not wait for the lease to end, and it is not their fault: the lease does not count.
            let back = |(item, _): &(crate::schedule::Item, u8)| Settle {
                key: item.key,
                token,
                then: Then::At(now),
            };
            settle(hub, &leased.items.iter().map(back).collect::<Vec<_>>(), now).await;
            return Err(error);
        }
    };
    settle(hub, &loaded.aside, now).await;
    if loaded.items.is_empty() {
        return Ok(None);
    }
    hub.leases.insert(token, loaded.given);
    let mut given = worker.given.lock().unwrap_or_else(PoisonError::into_inner);
    if given.len() >= REMEMBERED {
        hub.leases.retain(&mut given);
    }
    given.push(token);
    drop(given);
    metrics::counter!("posthorn_queue_leased_total", "kind" => worker.kind.name())
        .increment(loaded.items.len() as u64);
    Ok(Some(Batch {
        token: bytes::Bytes::copy_from_slice(token.bytes()),
        lease: Some(posthorn_api::duration(hub.config.lease.length)),
        items: loaded.items,
        destination: loaded.destination,
    }))
}

async fn settle(hub: &Hub, ends: &[Settle], now: OffsetDateTime) {
    if !ends.is_empty()
        && let Err(error) = hub.schedule.settle(ends, now).await
    {
        hub.redis_failed(&error);
    }
}

/// The worker's stream is gone. What it had of work that may be done twice is given to others soon; a transfer may
/// still go on and be reported by another stream, so remote work keeps its lease.
pub(crate) async fn orphan(hub: &Hub, worker: &Worker) {
    let mut given = std::mem::take(&mut *worker.given.lock().unwrap_or_else(PoisonError::into_inner));
    hub.leases.retain(&mut given);
    if worker.kind == Kind::Remote || given.is_empty() {
        return;
    }
    let now = OffsetDateTime::now_utc();
    for token in given {
        for partition in hub.schedule.partitions() {
            if let Err(error) =
                hub.schedule.extend(token, partition, now, now + hub.config.lease.orphaned).await
            {
                hub.redis_failed(&error);
                return;
            }
        }
    }
    hub.wake.wake(worker.kind);
}
