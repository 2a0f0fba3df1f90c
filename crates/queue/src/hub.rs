//! What the parts of the queue share.

use std::sync::Arc;
use std::time::Duration;

use posthorn_database::Standing;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::fill;
use crate::in_hand::InHand;
use crate::leases::Leases;
use crate::level::Level;
use crate::retry::Policy;
use crate::schedule::{Add, Item, Kind, Schedule};
use crate::trace::Watchers;
use crate::wake::Wake;

/// What the parts of the queue share.
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) policy: Policy,
    /// For calls.
    pub(crate) pool: PgPool,
    /// For the way of messages, and for chores.
    pub(crate) standing: Standing,
    pub(crate) schedule: Schedule,
    pub(crate) clock: Clock,
    pub(crate) wake: Wake,
    pub(crate) watchers: Watchers,
    pub(crate) level: Arc<Level>,
    pub(crate) leases: Leases,
    pub(crate) in_hand: InHand,
    /// The schedule may lack something: it is to be compared with the spool.
    pub(crate) recover: Notify,
    /// A message must be looked at within a minute.
    pub(crate) timer: Notify,
    /// No work is given out any more.
    pub(crate) shutdown: CancellationToken,
    /// The drain time is over: streams that are still open are cut.
    pub(crate) cut: CancellationToken,
}

impl Hub {
    /// What time it is for all replicas of the queue.
    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Schedules work that is in the ledger already, and wakes those who wait for it. Where Redis is away, the work
    /// is found when it is back.
    pub(crate) async fn schedule_soon(
        &self,
        kind: Kind,
        items: &[(Item, OffsetDateTime)],
        now: OffsetDateTime,
    ) {
        if items.is_empty() {
            return;
        }
        match self.schedule.add(kind, Add::Sooner, items, now).await {
            Ok(_) => self.wake.wake(kind),
            Err(error) => self.redis_failed(&error),
        }
    }

    /// A message has come that must be looked at then. Whoever looks sleeps a minute at most: it need not hear of more.
    pub(crate) fn timer_at(&self, at: Option<OffsetDateTime>) {
        if at.is_some_and(|at| at < self.now() + Duration::from_secs(60)) {
            self.timer.notify_one();
        }
    }

    /// Redis may have missed something that it should know.
    pub(crate) fn redis_failed(&self, error: &redis::RedisError) {
        metrics::counter!("posthorn_queue_redis_errors_total").increment(1);
        self.compare_again(error);
    }

    /// The schedule was not brought up to the ledger.
    pub(crate) fn schedule_failed(&self, error: &fill::Error) {
        match error {
            fill::Error::Redis(error) => self.redis_failed(error),
            other => self.compare_again(other),
        }
    }

    fn compare_again(&self, error: &dyn std::error::Error) {
        tracing::warn!(%error, "the schedule could not be changed: it will be compared with the spool");
        self.recover.notify_one();
    }
}
