//! The changes of a mailbox as they happen.

use std::collections::VecDeque;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use posthorn_api::error;
use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::watch_response::Change as Sent;
use sqlx::PgConnection;
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use super::messages::{optional_folder, summary};
use super::{BoxStream, Mailboxes};
use crate::callers::Caller;
use crate::error::Failure;
use crate::folder_name::FolderName;
use crate::store::messages::MessageRow;
use crate::store::{self, changes::Change, changes::Standing};
use crate::watch::Watcher;

/// Changes that are read at once: a watcher that does not take them holds no more in memory.
const PAGE: u32 = 100;

impl Mailboxes {
    pub(super) async fn watch_changes(
        &self,
        caller: Caller,
        request: api::WatchRequest,
    ) -> Result<BoxStream<api::WatchResponse>, Status> {
        let folder = optional_folder("folder", &request.folder)?;
        let account = self.accounts.resolve(&request.mailbox).await?.id;
        // First the subscription, then the look: what happens in between wakes.
        let watcher = self.watched.subscribe(account, self.config.max_watchers).ok_or_else(|| {
            error::exhausted("TOO_MANY_WATCHERS", "too many watch already", Duration::from_secs(10))
        })?;
        let standing = self.standing(account).await?;
        if let Some(folder) = &folder {
            self.must_exist(account, folder).await?;
        }
        let after = begin(request.after_modseq, standing)?;
        let started = response(Sent::Started(api::WatchStarted {}), after);
        let watch = Watch {
            mailboxes: self.clone(),
            caller,
            mailbox: request.mailbox,
            readmit_at: Instant::now() + self.config.recheck_watched_every,
            watcher,
            account,
            folder,
            after,
            read_all: false,
            unsent: VecDeque::from([started]),
        };
        let changes = stream::try_unfold(watch, |mut watch| async move {
            Ok(watch.next().await?.map(|response| (response, watch)))
        });
        Ok(changes.boxed())
    }

    async fn standing(&self, account: Uuid) -> Result<Standing, Failure> {
        if let Some(standing) = store::changes::standing(&self.pool, account).await? {
            return Ok(standing);
        }
        store::create(&self.pool, &[account]).await?;
        Ok(store::changes::standing(&self.pool, account).await?.ok_or(sqlx::Error::RowNotFound)?)
    }
}

/// Where a watch begins: refused where expunges that the caller has not seen are forgotten. Who comes with 0 knows of
/// no message that could have gone.
fn begin(asked: Option<u64>, standing: Standing) -> Result<i64, Failure> {
    let Some(asked) = asked else { return Ok(standing.highest_modseq) };
    let after = i64::try_from(asked).map_err(|_| Failure::TooOld)?;
    // A number from the future is of another mailbox, or of one that was restored from a backup.
    if after > standing.highest_modseq || (after > 0 && after < standing.forgotten_modseq) {
        return Err(Failure::TooOld);
    }
    Ok(after)
}

struct Watch {
    mailboxes: Mailboxes,
    caller: Caller,
    /// The address that the caller gave.
    mailbox: String,
    /// When to look whether the caller may still watch it.
    readmit_at: Instant,
    watcher: Watcher,
    account: Uuid,
    folder: Option<FolderName>,
    /// All changes up to here are sent, or among the unsent.
    after: i64,
    /// All that was known of at the last look has been read: the next look is for news.
    read_all: bool,
    unsent: VecDeque<api::WatchResponse>,
}

impl Watch {
    /// The next change; waits for it. Ends with the service, or when the caller may no longer watch.
    async fn next(&mut self) -> Result<Option<api::WatchResponse>, Status> {
        loop {
            if let Some(response) = self.unsent.pop_front() {
                return Ok(Some(response));
            }
            if self.readmit_at <= Instant::now() {
                self.mailboxes.readmit(&self.caller, &self.mailbox).await?;
                self.readmit_at = Instant::now() + self.mailboxes.config.recheck_watched_every;
            }
            if self.read_all {
                tokio::select! {
                    () = self.watcher.changed() => {}
                    () = tokio::time::sleep_until(self.readmit_at) => continue,
                    () = self.mailboxes.shutdown.cancelled() => {
                        let text = "the service stops: come back with the last modseq";
                        return Err(error::unavailable("STOPPING", text, Duration::from_secs(1)));
                    }
                }
            }
            // What is known now is visible to the statement that follows.
            let (known, arrived) = self.watcher.known();
            if let Some(arrived) = arrived.filter(|arrived| self.is_next(&arrived.row)) {
                let message = summary(arrived.row.clone(), arrived.summary.clone());
                self.unsent.push_back(response(Sent::Message(message), known));
                self.read_all = true;
            } else {
                let changes = self.look().await.map_err(Failure::from)?;
                self.read_all = changes.len() < PAGE as usize;
                self.take(changes).await?;
            }
            if self.read_all {
                self.after = self.after.max(known);
            }
        }
    }

    /// Whether it is all that has changed: every change has a number of its own.
    fn is_next(&self, row: &MessageRow) -> bool {
        row.modseq == self.after + 1
            && self.folder.as_ref().is_none_or(|folder| folder.as_str() == row.folder)
    }

    async fn look(&self) -> sqlx::Result<Vec<Change>> {
        let folder = self.folder.as_ref().map(FolderName::as_str);
        let look = async |connection: &mut PgConnection| {
            store::changes::since(connection, self.account, folder, self.after, PAGE).await
        };
        self.mailboxes.reading.with(look).await
    }

    async fn take(&mut self, changes: Vec<Change>) -> Result<(), Status> {
        self.after = changes.last().map_or(self.after, Change::modseq);
        let rows = changes.iter().filter_map(|change| match change {
            Change::Message(row) => Some(row.clone()),
            Change::Expunged { .. } => None,
        });
        let mut messages = self.mailboxes.summaries(rows.collect(), false).await?.into_iter();
        for change in changes {
            let modseq = change.modseq();
            let sent = match change {
                Change::Message(_) => messages.next().map(Sent::Message),
                Change::Expunged { folder, uid, .. } => {
                    Some(Sent::Expunged(api::MessageExpunged { folder, uid: uid as u32 }))
                }
            };
            self.unsent.extend(sent.map(|sent| response(sent, modseq)));
        }
        Ok(())
    }
}

fn response(change: Sent, modseq: i64) -> api::WatchResponse {
    api::WatchResponse { change: Some(change), modseq: modseq as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_begins_where_nothing_is_missed() {
        let standing = Standing { highest_modseq: 10, forgotten_modseq: 4 };
        for (asked, after) in [
            (None, Some(10)),
            (Some(0), Some(0)),
            (Some(3), None),
            (Some(4), Some(4)),
            (Some(10), Some(10)),
            (Some(11), None),
        ] {
            assert_eq!(begin(asked, standing).ok(), after, "{asked:?}");
        }
    }
}
