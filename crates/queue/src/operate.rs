//! What operators do to messages that wait. Each works through the messages that meet a condition in pages, a
//! transaction each, so that a million of them neither locks the spool nor is lost halfway.

use posthorn_api::trace::v1::EventKind;
use posthorn_mail::MessageId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::hub::Hub;
use crate::message::Change;
use crate::outcome::{commit, effects::Effects};
use crate::schedule::{Item, Kind, Learn};
use crate::spool::{self, admin::Condition, find::Due};
use crate::trace::{Record, event};

/// Messages in one transaction.
const PAGE: i64 = 500;

/// What is done to messages.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Hold,
    Release,
    Retry,
    Bounce { silent: bool, reason: String },
}

/// Does it to all messages that meet the condition; returns how many it changed.
pub(crate) async fn operate(hub: &Hub, condition: &Condition, operation: &Operation) -> sqlx::Result<u64> {
    let done = operate_in_pages(hub, condition, operation).await;
    if done.is_err() {
        // It may have been written all the same, and nobody told the schedule.
        hub.recover.notify_one();
    }
    done
}

async fn operate_in_pages(hub: &Hub, condition: &Condition, operation: &Operation) -> sqlx::Result<u64> {
    let (mut last, mut done) = (MessageId::from(Uuid::nil()), 0);
    loop {
        let mut transaction = hub.pool.begin().await?;
        let ids = spool::admin::select(&mut transaction, condition, last, PAGE).await?;
        let Some(end) = ids.last() else { return Ok(done) };
        last = *end;
        done += match operation {
            Operation::Bounce { silent, reason } => bounce(hub, transaction, &ids, *silent, reason).await?,
            other => mark(hub, transaction, &ids, other).await?,
        };
    }
}

async fn mark(
    hub: &Hub,
    mut transaction: sqlx::Transaction<'_, sqlx::Postgres>,
    ids: &[MessageId],
    operation: &Operation,
) -> sqlx::Result<u64> {
    let now = hub.now();
    // In the order in which outcomes lock them.
    spool::load::lock(&mut transaction, ids).await?;
    let connection: &mut PgConnection = &mut transaction;
    let (kind, changed) = match operation {
        Operation::Hold => (EventKind::Held, spool::admin::hold(connection, ids).await?),
        Operation::Release => (EventKind::Released, spool::admin::release(connection, ids).await?),
        _ => (EventKind::Retried, spool::admin::retry(connection, ids, now).await?),
    };
    let due = match operation {
        // What is in the schedule falls out of it when it is leased.
        Operation::Hold => Vec::new(),
        _ => spool::admin::work(connection, &changed).await?,
    };
    let records: Vec<Record> = changed.iter().map(|id| Record::new(*id, vec![event(now, kind)])).collect();
    let rows = records.iter().map(|record| (record.message, record.encoded())).collect();
    spool::trace::insert(connection, rows, now).await?;
    transaction.commit().await?;
    hub.wake.tell(&records);
    if matches!(operation, Operation::Retry) {
        unblock(hub, &due, now).await;
    }
    for kind in Kind::ALL {
        let items: Vec<(Item, OffsetDateTime)> =
            due.iter().filter(|d| d.kind == kind).map(|d| (d.item, d.at)).collect();
        hub.schedule_soon(kind, &items, now).await;
    }
    Ok(changed.len() as u64)
}

/// An operator who wants an attempt now wants it though the last one failed.
async fn unblock(hub: &Hub, due: &[Due], now: OffsetDateTime) {
    let mut lanes: Vec<_> = due.iter().filter(|d| d.kind == Kind::Remote).map(|d| d.item.key.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    for lane in lanes {
        if let Err(error) = hub.schedule.learn(lane, Learn::Unblock, now).await {
            return hub.redis_failed(&error);
        }
    }
}

async fn bounce(
    hub: &Hub,
    mut transaction: sqlx::Transaction<'_, sqlx::Postgres>,
    ids: &[MessageId],
    silent: bool,
    reason: &str,
) -> sqlx::Result<u64> {
    let now = hub.now();
    let messages = spool::load::lock(&mut transaction, ids).await?;
    let recipients = spool::load::recipients(&mut transaction, ids).await?;
    let bounced = messages.len() as u64;
    let mut effects = Effects::new(messages, &hub.policy, now);
    for (id, recipients) in recipients {
        for mut recipient in recipients.into_iter().filter(|r| r.state.is_waiting()) {
            recipient.give_up(reason, now);
            effects.after(id, recipient, &Change::Failed);
        }
    }
    if silent {
        effects.tell.clear();
    }
    commit(hub, transaction, effects).await?.schedule(hub, Vec::new()).await;
    Ok(bounced)
}
