//! What must not be left once all mail has come to its end.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_testkit::{stores, wait};

/// What local-delivery is to be set to before [`nothing_is_orphaned`] is asked: what nothing refers to is collected at
/// once. Only when nothing more is appended.
pub const COLLECT_AT_ONCE: [&str; 4] = [
    "local_delivery.mailbox.append_timeout=500ms",
    "local_delivery.work.patience=500ms",
    "local_delivery.collect.grace=1s",
    "local_delivery.collect.every=1s",
];

/// Waits until a Redis has no items of work.
pub async fn no_work_is_left(redis: &str) {
    wait::until("a Redis without items", Duration::from_secs(60), async || {
        let keys = stores::keys(redis).await.ok()?;
        // Items are in these; what else there is says how lanes were served, or expires.
        let holds_items = |key: &&String| {
            let of_a_lane = [":ready:", ":flows:", ":slots:"].iter().any(|part| key.contains(part));
            of_a_lane || [":due", ":lease", ":again"].iter().any(|end| key.ends_with(end))
        };
        (!keys.iter().any(|key| holds_items(&key))).then_some(())
    })
    .await;
}

/// Waits until no content is there that nothing refers to; and fails when a mailbox refers to content that is gone.
pub async fn nothing_is_orphaned(database: &str) -> Result<()> {
    wait::until("content that nothing refers to is gone", Duration::from_secs(90), async || {
        let orphans = "SELECT count(DISTINCT content_id) FROM content.chunk c
             WHERE NOT EXISTS (SELECT FROM mailbox.message m WHERE m.content_id = c.content_id)";
        (stores::numbers(database, orphans).await.ok()? == [0]).then_some(())
    })
    .await;
    let hollow = "SELECT count(*) FROM mailbox.message m
         WHERE NOT EXISTS (SELECT FROM content.chunk c WHERE c.content_id = m.content_id)";
    let hollow = stores::numbers(database, hollow).await?;
    ensure!(hollow == [0], "{hollow:?} messages in mailboxes have lost their content");
    for table in ["spool.message", "spool.recipient"] {
        let rows = stores::numbers(database, &format!("SELECT count(*) FROM {table}")).await?;
        ensure!(rows == [0], "{table} has {rows:?} rows");
    }
    Ok(())
}
