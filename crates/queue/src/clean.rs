//! Forgetting what need not be remembered, and counting what is there.

use std::sync::Arc;
use std::time::Duration;

use crate::hub::Hub;
use crate::{late, level, spool};

/// Rows deleted in one statement.
const ROWS: i64 = 10_000;

/// Cleans and counts until told to stop.
pub(crate) async fn run(hub: Arc<Hub>) {
    let mut count = tokio::time::interval(hub.config.spool.count_every);
    let mut forget = tokio::time::interval(Duration::from_secs(600));
    for interval in [&mut count, &mut forget] {
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    loop {
        let done = tokio::select! {
            _ = count.tick() => self::count(&hub).await,
            _ = forget.tick() => self::forget(&hub).await,
            () = hub.shutdown.cancelled() => return,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the spool could not be counted or cleaned");
        }
    }
}

async fn count(hub: &Hub) -> sqlx::Result<()> {
    level::count(hub).await?;
    late::tell(hub).await
}

/// What happened to a message is kept for a time after its end, which is not written down for each of its rows: after
/// a message's longest life and that time none of them is needed.
async fn forget(hub: &Hub) -> sqlx::Result<()> {
    let now = hub.now();
    let standing = &hub.standing;
    let before = now - hub.config.trace.keep - hub.config.give_up.after;
    while standing.with(async |c| spool::trace::forget(c, before, ROWS).await).await? == ROWS as u64 {}
    let before = now - hub.config.accept.idempotency;
    while standing.with(async |c| spool::trace::forget_keys(c, before, ROWS).await).await? == ROWS as u64 {}
    Ok(())
}
