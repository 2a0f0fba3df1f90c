//! How full the spool is.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::Config;
use crate::hub::Hub;
use crate::spool;

/// How full the spool is: counted now and then, reckoned between.
#[derive(Debug, Default)]
pub(crate) struct Level {
    messages: AtomicU64,
    bytes: AtomicU64,
    max_messages: u64,
    max_bytes: u64,
}

impl Level {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            max_messages: config.spool.max_messages,
            max_bytes: config.spool.max_bytes.as_u64(),
            ..Default::default()
        }
    }

    pub(crate) fn set(&self, messages: u64, bytes: u64) {
        self.messages.store(messages, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        metrics::gauge!("posthorn_queue_messages").set(messages as f64);
        metrics::gauge!("posthorn_queue_bytes").set(bytes as f64);
    }

    pub(crate) fn add(&self, messages: u64, bytes: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Messages have ended here.
    pub(crate) fn ended(&self, messages: u64, bytes: u64) {
        let less = |by| move |level: u64| Some(level.saturating_sub(by));
        let _ = self.messages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less(messages));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less(bytes));
    }

    pub(crate) fn is_full(&self) -> bool {
        let over = |level: &AtomicU64, max| max > 0 && level.load(Ordering::Relaxed) >= max;
        over(&self.messages, self.max_messages) || over(&self.bytes, self.max_bytes)
    }
}

/// Counts the spool anew.
pub(crate) async fn count(hub: &Hub) -> sqlx::Result<()> {
    let (messages, bytes) =
        hub.standing.with(async |connection| spool::admin::size(connection).await).await?;
    hub.level.set(messages, bytes);
    Ok(())
}
