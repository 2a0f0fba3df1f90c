//! Delivery of what is not in the queue's ledger yet: all but the commit is done while it is written there, so that what
//! is alone on an idle system waits for one of the two after the other, not for both.

use posthorn_database::Standing;
use sqlx::Executor as _;
use time::OffsetDateTime;

use super::deliver_here::{deliver_here, go_into_one_folder};
use super::deliver_plain::deliver_plain;
use crate::placement::{Arrival, Placed};

/// Puts `arrivals` into their mailboxes once `kept` says that the ledger has their message. `None`, and nothing was done,
/// where it says that it has not, or where they do not go the plain way. While it is waited for, the mailboxes are locked.
///
/// What has failed may be done all the same, once the message was kept: it is delivered again, which changes nothing (R4).
pub(crate) async fn deliver_early(
    standing: &Standing,
    arrivals: &[&Arrival],
    at: OffsetDateTime,
    kept: impl Future<Output = bool>,
) -> sqlx::Result<Option<Vec<Placed>>> {
    standing
        .with(async |connection| {
            connection.execute("BEGIN").await?;
            let placed = if go_into_one_folder(arrivals) {
                deliver_here(connection, arrivals, at, None).await?.map(|delivered| delivered.placed)
            } else {
                deliver_plain(connection, arrivals, at).await?
            };
            match placed {
                Some(placed) if kept.await => {
                    connection.execute("COMMIT").await?;
                    Ok(Some(placed))
                }
                _ => {
                    connection.execute("ROLLBACK").await?;
                    Ok(None)
                }
            }
        })
        .await
}
