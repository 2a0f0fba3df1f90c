//! Hears from Postgres what changed in the directory, and makes the cache forget it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use posthorn_database::{heard, limited};
use posthorn_service::{Need, wait_for};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Change};

/// As the triggers of the schema call it.
const CHANNEL: &str = "posthorn_directory";

/// Listens until told to stop; a lost connection is made again.
pub(crate) async fn listen(
    pool: PgPool,
    cache: Arc<Cache>,
    heartbeat: Duration,
    need: Need,
    shutdown: CancellationToken,
) {
    loop {
        let (pool, told) = (pool.clone(), Arc::clone(&cache));
        let connected = async move || connect(pool.clone(), Arc::clone(&told), heartbeat).await;
        let Some(listener) = wait_for(&need, &shutdown, connected).await else { return };
        tracing::debug!("directory changes are being told");
        tokio::select! {
            Err(lost) = hear(listener, &cache, heartbeat) => {
                cache.disconnected();
                need.missing(&lost);
                tracing::warn!(reason = %lost, "directory changes are not told any more: connecting again");
            }
            () = shutdown.cancelled() => return,
        }
    }
}

async fn connect(pool: PgPool, cache: Arc<Cache>, heartbeat: Duration) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    listener.eager_reconnect(false);
    let listening = async {
        listener.listen(CHANNEL).await?;
        // The schema may not have been made yet.
        sqlx::query("SELECT FROM directory.tenants LIMIT 1").execute(&mut listener).await
    };
    limited(heartbeat, listening).await?;
    // After LISTEN has been answered no change is missed; before, any may have been. Before whoever waits for this
    // connection is told that it stands: they may rely on what is kept.
    cache.connected();
    Ok(listener)
}

async fn hear(
    mut listener: PgListener,
    cache: &Cache,
    heartbeat: Duration,
) -> Result<Infallible, sqlx::Error> {
    loop {
        let notice = heard(&mut listener, heartbeat).await?;
        let change = Change::parse(notice.payload());
        tracing::debug!(?change, "the directory changed");
        cache.forget(&change);
    }
}
