//! Looking at messages when their time has come: delay notices, and the end of those that no attempt has ended
//! (their destination is suspended, or nobody takes the work).
//!
//! The times are in Postgres, with an index, and a notice is written in the transaction that notes it: each age is
//! told of once, whatever crashes. Any replica may look; what another has locked is passed over.

use std::sync::Arc;
use std::time::Duration;

use posthorn_dsn::Action;
use posthorn_mail::MessageId;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use crate::config::Config;
use crate::hub::Hub;
use crate::message::{Change, Recipient};
use crate::notice::{self, Occasion};
use crate::outcome::{Written, commit, effects::Effects};
use crate::spool::{self, Message};

/// Messages looked at in one transaction.
const BATCH: i64 = 200;
/// Longer than this nobody sleeps, lest another replica's word be waited for that never came.
const LONGEST: Duration = Duration::from_secs(60);
/// When a message is looked at again that Postgres took nothing of.
const REFUSED: Duration = Duration::from_secs(600);

/// Looks until told to stop.
pub(crate) async fn run(hub: Arc<Hub>) {
    loop {
        let pause = match look(&hub).await {
            Ok(next) => {
                let left = next.map(|at| Duration::try_from(at - hub.now()).unwrap_or_default());
                left.map_or(LONGEST, |left| left.min(LONGEST))
            }
            Err(error) => {
                tracing::warn!(%error, "messages whose time has come could not be looked at");
                // It may have been written all the same, and nobody told the schedule.
                hub.recover.notify_one();
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hub.timer.notified() => {}
            () = hub.shutdown.cancelled() => return,
        }
    }
}

/// The end of a message that no attempt ends: the last attempt, at its expiry, is given a lease's time.
pub(crate) fn end(config: &Config, expires_at: OffsetDateTime) -> OffsetDateTime {
    expires_at + config.lease.length
}

/// Looks at all messages whose time has come; returns when the next one's has.
async fn look(hub: &Hub) -> sqlx::Result<Option<OffsetDateTime>> {
    let mut limit = BATCH;
    loop {
        let next = hub.standing.with(async |c| spool::find::next_timer(c).await).await?;
        if next.is_none_or(|at| at > hub.now()) {
            return Ok(next);
        }
        match look_at_some(hub, limit).await {
            Ok(true) => {}
            // Others are at them.
            Ok(false) => return Ok(Some(hub.now() + Duration::from_secs(1))),
            Err(error) if spool::is_away(&error) => return Err(error),
            // One of them is to blame: the others do not wait for it.
            Err(error) if limit > 1 => {
                tracing::warn!(%error, "Postgres refuses a batch of notices: writing them one by one");
                limit = 1;
            }
            Err(error) => {
                let later = hub.now() + REFUSED;
                let id = hub.standing.with(async |c| spool::find::postpone_timer(c, later).await).await?;
                let message_id = id.map(tracing::field::display);
                tracing::error!(message_id, %error, "what is due for a message cannot be written: tried again later");
            }
        }
    }
}

/// One transaction; `false` when others have all of them.
async fn look_at_some(hub: &Hub, limit: i64) -> sqlx::Result<bool> {
    let look = async |connection: &mut PgConnection| look_over(connection, hub, limit).await;
    let Some(written) = hub.standing.with(look).await? else { return Ok(false) };
    written.schedule(hub, Vec::new()).await;
    Ok(true)
}

async fn look_over(connection: &mut PgConnection, hub: &Hub, limit: i64) -> sqlx::Result<Option<Written>> {
    let now = hub.now();
    let mut transaction = connection.begin().await?;
    let messages = spool::find::timers(&mut transaction, now, limit).await?;
    if messages.is_empty() {
        transaction.rollback().await?;
        return Ok(None);
    }
    let ids: Vec<MessageId> = messages.iter().map(|m| m.id).collect();
    let mut recipients = spool::load::recipients(&mut transaction, &ids).await?;
    let all = messages.iter().map(|m| (m.id, m.clone())).collect();
    let mut effects = Effects::new(all, &hub.policy, now);
    let mut timers = Vec::with_capacity(messages.len());
    for message in &messages {
        let waiting = recipients.remove(&message.id).unwrap_or_default();
        let waiting = waiting.into_iter().filter(|r| r.state.is_waiting()).collect();
        let (noticed, next) = look_at(&hub.config, &mut effects, message, waiting);
        timers.push((message.id, noticed, next));
    }
    spool::find::set_timers(&mut transaction, &timers).await?;
    commit(hub, transaction, effects).await.map(Some)
}

/// What is due for a message; returns the ages it has reached and when to look again.
fn look_at(
    config: &Config,
    effects: &mut Effects<'_>,
    message: &Message,
    waiting: Vec<Recipient>,
) -> (usize, Option<OffsetDateTime>) {
    let ages = &config.notice.after;
    let end = end(config, message.expires_at);
    if effects.now >= end {
        // What an operator holds waits for the operator.
        if !message.held {
            for mut recipient in waiting {
                recipient.expire(effects.now);
                effects.after(message.id, recipient, &Change::GaveUp);
            }
        }
        return (message.noticed, None);
    }
    let reached = notice::reached(ages, message.received_at, effects.now);
    if reached > message.noticed {
        for recipient in &waiting {
            effects.tell(message.id, recipient, Occasion::Delay, Action::Delayed);
        }
    }
    (reached, Some(notice::next_look(ages, message.received_at, reached, end)))
}
