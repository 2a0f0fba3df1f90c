//! Keeping the schedule equal to the spool: filling it when it comes back empty, comparing it after trouble, and
//! sweeping for what fell out of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use posthorn_mail::MessageId;
use posthorn_service::Need;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::hub::Hub;
use crate::in_hand::UNKNOWN;
use crate::schedule::{Add, Item, Kind, Lane, Learn};
use crate::spool::{self, find::Due, find::Place};

/// Messages looked at in one step.
const PAGE: i64 = 2000;
/// A sweep rests so many times as long as a page has taken before the next.
const BREATH: u32 = 4;

/// Why a comparison did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("Redis has forgotten what it was filled with")]
    Forgotten,
}

/// What comparing waits for: Redis, and the spool in Postgres.
pub(crate) struct Stores {
    pub(crate) redis: Need,
    pub(crate) spool: Need,
}

/// Compares and sweeps until told to stop.
pub(crate) async fn run(hub: Arc<Hub>, stores: Stores) {
    let mut place = beginning();
    let mut pause = Duration::ZERO;
    // At the start nobody knows what happened while the queue was away.
    hub.recover.notify_one();
    let mut at_start = true;
    loop {
        tokio::select! {
            () = hub.recover.notified() => {
                tokio::select! {
                    () = recover(&hub, &stores, std::mem::take(&mut at_start)) => {}
                    () = hub.shutdown.cancelled() => return,
                }
            }
            () = tokio::time::sleep(pause) => {
                let begun = Instant::now();
                let swept = sweep(&hub, place).await;
                pause = hub.config.sweep.every;
                match swept {
                    Ok(Some(next)) => {
                        place = next;
                        pause = pause.min(begun.elapsed() * BREATH);
                    }
                    Ok(None) => place = beginning(),
                    Err(error) => {
                        tracing::warn!(%error, "the sweep was not finished");
                        hub.recover.notify_one();
                    }
                }
            }
            () = hub.shutdown.cancelled() => return,
        }
    }
}

/// Compares until it succeeds, saying what it waits for.
async fn recover(hub: &Hub, stores: &Stores, at_start: bool) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = compare(hub, at_start).await {
        let missing = if let Error::Postgres(_) = error { &stores.spool } else { &stores.redis };
        pause = wait(missing, &error, pause).await;
    }
    stores.redis.met();
    stores.spool.met();
}

/// Counts the spool for the first time, which tells that Postgres is there and its schema made.
pub(crate) async fn count_first(hub: Arc<Hub>, postgres: Need) {
    let counted = async {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = crate::level::count(&hub).await {
            pause = wait(&postgres, &error.into(), pause).await;
        }
        postgres.met();
    };
    hub.shutdown.run_until_cancelled(counted).await;
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Says what is waited for, waits, and returns how long to wait the next time.
async fn wait(need: &Need, error: &Error, pause: Duration) -> Duration {
    need.missing(error);
    tracing::warn!(%error, "waiting for a store, trying again in {pause:?}");
    tokio::time::sleep(pause).await;
    (pause * 2).min(Duration::from_secs(2))
}

/// Adds all work that the spool knows and the schedule does not; at the start without that which another replica may have
/// in hand.
async fn compare(hub: &Hub, at_start: bool) -> Result<(), Error> {
    // What this process has given out is known to be leased, whatever Redis has forgotten.
    let until = hub.now() + hub.config.lease.length;
    for (token, items) in hub.leases.all(Instant::now()) {
        hub.schedule.restore(token, &items, until).await?;
    }
    let now = hub.now();
    let suspended = hub.standing.with(async |c| spool::find::suspended(c).await).await?;
    suspend(hub, &suspended).await?;
    let mut filling = Vec::new();
    for kind in Kind::ALL {
        for partition in hub.schedule.partitions() {
            if hub.schedule.begin_filling(kind, partition).await? {
                filling.push((kind, partition));
            }
        }
    }
    let may_be_in_hand = at_start && filling.is_empty();
    let (mut last, mut found) = (MessageId::from(Uuid::nil()), 0);
    while let Some((next, mut due)) =
        hub.standing.with(async |c| spool::find::page(c, last, PAGE).await).await?
    {
        if may_be_in_hand {
            leave_in_hand(&mut due, now);
        }
        found += add(hub, &due).await?;
        last = next;
        for (kind, partition) in &filling {
            if !hub.schedule.go_on_filling(*kind, *partition).await? {
                return Err(Error::Forgotten);
            }
        }
    }
    for (kind, partition) in &filling {
        if !hub.schedule.end_filling(*kind, *partition).await? {
            return Err(Error::Forgotten);
        }
    }
    if !filling.is_empty() || found > 0 {
        tracing::info!(found, "the schedule was compared with the spool");
    }
    Kind::ALL.into_iter().for_each(|kind| hub.wake.wake(kind));
    Ok(())
}

/// Holds back destinations that the ledger had as suspended. Those that were resumed meanwhile, by another replica, are let
/// go again: whoever resumes tells the schedule after the ledger, so one of the two is the last to tell it.
pub(crate) async fn suspend(hub: &Hub, destinations: &[String]) -> Result<(), Error> {
    if destinations.is_empty() {
        return Ok(());
    }
    for destination in destinations {
        hub.schedule.learn(Lane::remote(destination), Learn::Suspend, hub.now()).await?;
    }
    let still = hub.standing.with(async |c| spool::find::suspended(c).await).await?;
    for destination in destinations.iter().filter(|destination| !still.contains(destination)) {
        hub.schedule.learn(Lane::remote(destination), Learn::Resume, hub.now()).await?;
    }
    Ok(())
}

/// A place before all work.
fn beginning() -> Place {
    (OffsetDateTime::UNIX_EPOCH, MessageId::from(Uuid::nil()), 0)
}

/// Adds work that is overdue and not scheduled, a page from `place` on; returns where the next page begins, or `None` at
/// the end. What waits in a long line is overdue, too, and is passed over there; hence the pages.
async fn sweep(hub: &Hub, place: Place) -> Result<Option<Place>, Error> {
    let now = hub.now();
    let before = now - hub.config.sweep.overdue;
    let (mut due, next) =
        hub.standing.with(async |c| spool::find::overdue(c, place, before, PAGE).await).await?;
    leave_in_hand(&mut due, now);
    let found = add(hub, &due).await?;
    if found > 0 {
        tracing::warn!(found, "overdue work was missing in the schedule");
        metrics::counter!("posthorn_queue_swept_total").increment(found);
    }
    Ok(next)
}

/// What has just come in may be in a replica's hand, of which the schedule does not know yet.
fn leave_in_hand(due: &mut Vec<Due>, now: OffsetDateTime) {
    due.retain(|due| due.kind != Kind::Route || due.at < now - UNKNOWN);
}

/// Schedules what the schedule does not have, or has for later than the ledger says: whoever changed the ledger could not
/// tell it.
async fn add(hub: &Hub, due: &[Due]) -> Result<u64, Error> {
    let now = hub.now();
    let how = Add::IfAbsent { late: now + hub.config.lease.length };
    let mut found = 0;
    for kind in Kind::ALL {
        let of_kind = due.iter().filter(|d| d.kind == kind);
        let items: Vec<(Item, OffsetDateTime)> = of_kind.map(|d| (d.item, d.at)).collect();
        let added = hub.schedule.add(kind, how, &items, now).await?;
        if added > 0 {
            hub.wake.wake(kind);
        }
        found += added;
    }
    Ok(found)
}
