//! Removes what is no longer needed: contents that nothing refers to, mailboxes whose accounts are gone, and old
//! bookkeeping.
//!
//! A content is on the list `content.released` once somebody who referred to it let go. It is deleted when, a grace
//! later, the spool does not hold its message and no mailbox refers to it. That a message which the spool has let go of
//! gets a new reference from nowhere is impossible: a copy needs an older copy, and a delivery needs the spool. (A
//! worker whose lease has ended may still deliver, but not for so long as the grace.)

mod gone;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use posthorn_api::message_id_bytes;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_api::spool::v1::HeldRequest;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_mail::MessageId;
use posthorn_service::{Channel, within};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::config::Collect;
use crate::store::collect as store;
use gone::Gone;

/// Rows of bookkeeping that one statement removes.
const ROWS: i64 = 10_000;
/// How long another service may take to say what it knows of a page.
const OTHERS: Duration = Duration::from_secs(30);

/// Collects now and then until told to stop. Any number of replicas may.
pub(crate) async fn run(
    queue: Channel,
    router: Channel,
    pool: PgPool,
    config: Collect,
    shutdown: CancellationToken,
) {
    let router = RoutingServiceClient::new(router);
    let gone = Gone { router, pool: pool.clone(), config: config.clone() };
    let spool = SpoolServiceClient::new(queue);
    let mut collector = Collector { spool, pool, config, gone, asked: None };
    loop {
        tokio::select! {
            () = tokio::time::sleep(collector.config.every) => {}
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            // Each step is a transaction: to stop in between harms nothing.
            () = shutdown.cancelled() => return,
            done = collector.round() => if let Err(reason) = done {
                tracing::warn!(%reason, "collecting was broken off, and goes on next time");
            },
        }
    }
}

/// Why a round was broken off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the store failed: {0}")]
    Store(#[from] sqlx::Error),
    #[error("the queue cannot say what it holds: {}", .0.message())]
    Queue(#[from] tonic::Status),
    #[error("the router cannot say which accounts there are: {}", .0.message())]
    Router(tonic::Status),
    #[error("the router did not say of all accounts whether there are such")]
    Partial,
}

struct Collector {
    spool: SpoolServiceClient<Channel>,
    pool: PgPool,
    config: Collect,
    gone: Gone,
    /// When the directory was last asked about all mailboxes.
    asked: Option<Instant>,
}

impl Collector {
    /// One round, until nothing is left that is due.
    async fn round(&mut self) -> Result<(), Broken> {
        while self.contents().await? {}
        let (deliveries, expunges) = (self.config.remember_deliveries_for, self.config.remember_expunges_for);
        while store::forget_deliveries(&self.pool, deliveries, ROWS).await? == ROWS as u64 {}
        while store::forget_expunges(&self.pool, expunges, ROWS).await? > 0 {}
        if self.asked.is_none_or(|asked| asked.elapsed() >= self.config.accounts_every) {
            self.gone.round().await?;
            self.asked = Some(Instant::now());
        }
        Ok(())
    }

    /// One step; whether there may be more to do.
    async fn contents(&self) -> Result<bool, Broken> {
        let grace = self.config.grace;
        let mut connection = self.pool.acquire().await?;
        let due = posthorn_content::released_before(&mut connection, grace, self.config.batch).await?;
        drop(connection);
        let ids: Vec<MessageId> = due.iter().map(|released| released.id).collect();
        if ids.is_empty() {
            return Ok(false);
        }
        let held = self.held(&ids).await?;
        let looked_at = self.decide(&ids, &held, grace).await?;
        // What another replica is at does not count: it would be seen again and again.
        Ok(looked_at > 0 && ids.len() == self.config.batch as usize)
    }

    async fn held(&self, ids: &[MessageId]) -> Result<HashSet<MessageId>, Broken> {
        let message_ids = ids.iter().map(|id| message_id_bytes(*id)).collect();
        let mut spool = self.spool.clone();
        let answer = within(OTHERS, spool.held(HeldRequest { message_ids })).await?.into_inner();
        Ok(answer.message_ids.iter().filter_map(|id| MessageId::try_from(&id[..]).ok()).collect())
    }

    /// Deletes what has no holder; what a mailbox holds is off the list until that lets go; what the spool holds is
    /// looked at again a grace later. Returns how many were decided on.
    async fn decide(
        &self,
        ids: &[MessageId],
        held: &HashSet<MessageId>,
        grace: Duration,
    ) -> Result<usize, Broken> {
        let mut transaction = self.pool.begin().await?;
        let locked = posthorn_content::lock_released(&mut transaction, ids, grace).await?;
        // A statement of its own, after the locks: whoever let go before them is seen to have let go.
        let referred: HashSet<MessageId> = store::referred(&mut transaction, &locked).await?;
        let (kept, rest): (Vec<_>, Vec<_>) = locked.iter().copied().partition(|id| referred.contains(id));
        let (later, gone): (Vec<_>, Vec<_>) = rest.into_iter().partition(|id| held.contains(id));
        posthorn_content::keep(&mut transaction, &kept).await?;
        posthorn_content::release(&mut transaction, &later).await?;
        posthorn_content::delete(&mut transaction, &gone).await?;
        transaction.commit().await?;
        metrics::counter!("posthorn_local_delivery_contents_collected_total").increment(gone.len() as u64);
        tracing::debug!(gone = gone.len(), kept = kept.len(), later = later.len(), "collected");
        Ok(locked.len())
    }
}
