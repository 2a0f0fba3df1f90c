//! Writing what came of outcomes, and what follows from it in the schedule.

use std::collections::HashSet;

use futures::future;
use posthorn_mail::MessageId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::effects::Effects;
use super::notices;
use crate::accept;
use crate::fill;
use crate::hub::Hub;
use crate::schedule::{Item, Key, Kind, Lane, Learn, Settle, Then, Token};
use crate::spool;
use crate::trace::Record;

/// What is to be done once a transaction is through.
pub(crate) struct Written {
    now: OffsetDateTime,
    adds: Vec<(Kind, Item, OffsetDateTime)>,
    learn: Vec<(Lane, Learn)>,
    /// Destinations that the mail of a suspended domain comes to.
    suspended: Vec<String>,
    notices: Vec<(Item, OffsetDateTime)>,
}

/// Writes all that came of a batch into the ledger and commits.
pub(crate) async fn commit(
    hub: &Hub,
    mut transaction: sqlx::Transaction<'_, sqlx::Postgres>,
    mut effects: Effects<'_>,
) -> sqlx::Result<Written> {
    let now = effects.now;
    let connection = &mut *transaction;
    let own = notices::write(connection, &hub.config, &mut effects).await?;
    let (mut records, notices) = accept::insert_own(connection, &hub.config, &own, now).await?;
    spool::update::recipients(connection, &effects.updates()).await?;
    spool::insert::recipients(connection, &effects.inserts()).await?;
    spool::update::messages(connection, &effects.going_on()).await?;
    let suspended = suspend_with_domain(connection, &effects).await?;
    let ended = effects.ended();
    end(connection, &effects, &ended).await?;
    for id in &ended {
        let event = crate::trace::event(now, posthorn_api::trace::v1::EventKind::Ended);
        effects.event(*id, event);
    }
    let events = std::mem::take(&mut effects.events);
    let of_messages: Vec<Record> = events.into_iter().map(|(id, events)| Record::new(id, events)).collect();
    let ended_now: HashSet<MessageId> = ended.iter().copied().collect();
    let rows: Vec<(MessageId, Vec<u8>)> = of_messages
        .iter()
        .map(|record| match ended_now.contains(&record.message) {
            // What the message's own row said goes with it.
            true => (record.message, record.after_accepted(&effects.messages[&record.message])),
            false => (record.message, record.encoded()),
        })
        .collect();
    spool::trace::insert(connection, rows, now).await?;
    transaction.commit().await?;

    records.extend(of_messages);
    hub.wake.tell(&records);
    let bytes = ended.iter().map(|id| effects.messages[id].size).sum();
    hub.level.ended(ended.len() as u64, bytes);
    metrics::counter!("posthorn_queue_ended_total").increment(ended.len() as u64);
    let back_off = now + hub.config.destination.max_back_off;
    let (concurrency, max) = (hub.config.destination.concurrency, hub.config.destination.max_concurrency);
    let learn = effects.learnt.iter().map(|(lane, learnt)| match learnt.unavailable {
        Some(at) => (*lane, Learn::Unavailable { concurrency, until: at.min(back_off) }),
        None => (*lane, Learn::Success { concurrency, max }),
    });
    Ok(Written { now, learn: learn.collect(), suspended, adds: effects.adds, notices })
}

/// Suspends destinations that the mail of a suspended domain comes to; returns them.
async fn suspend_with_domain(
    connection: &mut PgConnection,
    effects: &Effects<'_>,
) -> sqlx::Result<Vec<String>> {
    let comes = effects.remote();
    if comes.0.is_empty() {
        Ok(Vec::new())
    } else {
        spool::admin::suspend_with_domain(connection, &comes).await
    }
}

/// Messages end: their rows go, and their content where no mailbox can have it.
async fn end(connection: &mut PgConnection, effects: &Effects<'_>, ended: &[MessageId]) -> sqlx::Result<()> {
    let placed = spool::update::end_messages(connection, ended, &effects.unwritten()).await?;
    let (mut delete, mut release) = (Vec::new(), Vec::new());
    for (id, placed) in placed {
        let maybe_local = effects.messages[&id].maybe_local
            || effects.new.iter().any(|(of, r)| *of == id && r.kind() == Kind::Local);
        if !placed.local && !placed.unplaced && !maybe_local {
            delete.push(id);
        } else if !placed.all_delivered || placed.unplaced || maybe_local {
            release.push(id);
        }
    }
    if !delete.is_empty() {
        posthorn_content::delete(connection, &delete).await?;
    }
    if !release.is_empty() {
        posthorn_content::release(connection, &release).await?;
    }
    Ok(())
}

impl Written {
    pub(super) fn nothing(now: OffsetDateTime) -> Self {
        Self { now, adds: Vec::new(), learn: Vec::new(), suspended: Vec::new(), notices: Vec::new() }
    }

    /// Brings the schedule up to the ledger. What Redis does not take now is found again by the sweep.
    pub(crate) async fn schedule(self, hub: &Hub, ends: Vec<Settle>) {
        let now = self.now;
        let settled: Vec<(Token, Key)> = ends.iter().map(|end| (end.token, end.key)).collect();
        hub.leases.settle(&settled);
        let mut by_kind: [Vec<(Item, OffsetDateTime)>; 3] = Default::default();
        for (kind, item, at) in self.adds {
            by_kind[kind as usize].push((item, at));
        }
        by_kind[Kind::Route as usize].extend(self.notices);
        let settle = async {
            // Lanes first: whoever is woken by a free slot must not find a lane open that is held back.
            for (lane, learn) in self.learn {
                if let Err(error) = hub.schedule.learn(lane, learn, now).await {
                    hub.redis_failed(&error);
                }
            }
            if let Err(error) = fill::suspend(hub, &self.suspended).await {
                hub.schedule_failed(&error);
            }
            if !ends.is_empty()
                && let Err(error) = hub.schedule.settle(&ends, now).await
            {
                hub.redis_failed(&error);
            }
        };
        let [route, local, remote] = &by_kind;
        future::join4(
            settle,
            hub.schedule_soon(Kind::Route, route, now),
            hub.schedule_soon(Kind::Local, local, now),
            hub.schedule_soon(Kind::Remote, remote, now),
        )
        .await;
        // A later time or a free slot is news to those who wait.
        let mut kinds: Vec<Kind> = ends
            .iter()
            .filter(|end| matches!(end.then, Then::At(_)) || end.token.kind() == Kind::Remote)
            .map(|end| end.token.kind())
            .collect();
        kinds.dedup();
        kinds.into_iter().for_each(|kind| hub.wake.wake(kind));
    }
}
