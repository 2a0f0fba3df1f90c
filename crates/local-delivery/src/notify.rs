//! How replicas tell each other that a mailbox has changed: NOTIFY, after the commit.
//!
//! Not within the transaction that makes the change: Postgres lets transactions that notify commit only one after the
//! other, each with its own wait for the disk. A notice that is lost because its process dies in between is made up
//! for: a delivery comes again and tells again, and what is watched is looked at every minute.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use posthorn_database::{Database, Standing, heard, limited};
use posthorn_service::{Need, wait_for};
use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store;
use crate::watch::{Arrived, Watched};

const CHANNEL: &str = "posthorn_mailbox";
/// A payload has at most 8,000 bytes; an account with its mod-sequence at most 52.
const NOTICES: usize = 128;
/// So many payloads are sent in one turn.
const PAYLOADS: usize = 32;
/// Notices that may wait; beyond, all watchers of all replicas are told to look.
const WAITING: usize = 16 * 1024;
/// What is sent when notices were lost.
const EVERYTHING: &str = "*";
/// How long nothing may be heard before it is asked whether anybody is there, and how long that may take.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Tells of changes that are committed. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    watched: Watched,
    others: mpsc::Sender<(Uuid, i64)>,
    overflown: Arc<AtomicBool>,
}

/// The notices on their way to the other replicas.
#[derive(Debug)]
pub(crate) struct Notices {
    waiting: mpsc::Receiver<(Uuid, i64)>,
    overflown: Arc<AtomicBool>,
}

/// The two ends.
pub(crate) fn notices(watched: Watched) -> (Changed, Notices) {
    let (others, waiting) = mpsc::channel(WAITING);
    let overflown = Arc::new(AtomicBool::new(false));
    (Changed { watched, others, overflown: Arc::clone(&overflown) }, Notices { waiting, overflown })
}

impl Changed {
    /// These mailboxes have changed, up to these mod-sequences (0: not known). Never waits.
    pub(crate) fn tell_all(&self, changes: impl Iterator<Item = (Uuid, i64)>) {
        let newest = newest(changes);
        self.watched.wake(newest.iter().map(|(account, modseq)| (*account, *modseq)));
        newest.into_iter().for_each(|change| self.tell_others(change));
    }

    /// A message has come into a mailbox, alone.
    pub(crate) fn tell_arrival(&self, account: Uuid, arrived: Arrived) {
        let modseq = arrived.row.modseq;
        self.watched.wake_by_arrival(account, arrived);
        self.tell_others((account, modseq));
    }

    /// Whether anybody here waits for changes of a mailbox.
    pub(crate) fn is_watched(&self, account: Uuid) -> bool {
        self.watched.is_watched(account)
    }

    fn tell_others(&self, change: (Uuid, i64)) {
        if self.others.try_send(change).is_err() {
            self.overflown.store(true, Ordering::Relaxed);
        }
    }

    /// One mailbox has changed.
    pub(crate) fn tell(&self, account: Uuid, modseq: i64) {
        self.tell_all(std::iter::once((account, modseq)));
    }
}

impl Notices {
    /// Sends notices until those who make them are gone: all that gathered while the last were being sent go together.
    pub(crate) async fn send(mut self, standing: Standing) {
        let mut waiting = Vec::new();
        while self.waiting.recv_many(&mut waiting, NOTICES * PAYLOADS).await > 0 {
            // The watchers here go first.
            tokio::task::yield_now().await;
            let changes = newest(waiting.drain(..));
            let payloads = match self.overflown.swap(false, Ordering::Relaxed) {
                true => vec![EVERYTHING.to_owned()],
                false => payloads(changes.into_iter().collect()),
            };
            let notify = async |connection: &mut PgConnection| {
                sqlx::query("SELECT pg_notify($1, payload) FROM UNNEST($2::text[]) AS payload")
                    .bind(CHANNEL)
                    .bind(payloads)
                    .execute(connection)
                    .await
            };
            if let Err(reason) = standing.with(notify).await {
                // The next notice that goes through makes up for this one.
                self.overflown.store(true, Ordering::Relaxed);
                tracing::warn!(%reason, "could not tell other replicas of changes");
            }
        }
    }
}

/// Wakes the watchers of this process by what other replicas tell, until told to stop.
pub(crate) async fn listen(database: Database, watched: Watched, need: Need, shutdown: CancellationToken) {
    let connect = move || listener(database.clone());
    while let Some(mut listener) = wait_for(&need, &shutdown, connect.clone()).await {
        // What was told while nobody listened is not known.
        watched.wake_all();
        loop {
            let notice = tokio::select! {
                notice = heard(&mut listener, HEARTBEAT) => notice,
                () = shutdown.cancelled() => return,
            };
            match notice {
                Ok(notice) if notice.payload() == EVERYTHING => watched.wake_all(),
                Ok(notice) => watched.wake(read(notice.payload())),
                Err(_) => break,
            }
        }
        tracing::warn!("lost the connection on which other replicas tell of changes");
    }
}

async fn listener(database: Database) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(&store::connect_to_hear(&database)?).await?;
    listener.eager_reconnect(false);
    limited(HEARTBEAT, listener.listen(CHANNEL)).await?;
    Ok(listener)
}

/// Looks now and then at what is watched: the notice of a replica that died between commit and notice never came.
pub(crate) async fn recheck(pool: PgPool, watched: Watched, every: Duration, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.cancelled() => return,
        }
        for accounts in watched.accounts().chunks(1000) {
            match store::modseqs(&pool, accounts).await {
                Ok(known) => watched.wake(known.into_iter().filter(|(_, modseq)| *modseq > 0)),
                Err(reason) => tracing::warn!(%reason, "could not look at the watched mailboxes"),
            }
        }
    }
}

/// The newest mod-sequence of each mailbox.
fn newest(changes: impl Iterator<Item = (Uuid, i64)>) -> HashMap<Uuid, i64> {
    let mut newest = HashMap::new();
    for (account, modseq) in changes {
        let known = newest.entry(account).or_insert(modseq);
        *known = modseq.max(*known);
    }
    newest
}

fn payloads(changes: Vec<(Uuid, i64)>) -> Vec<String> {
    let one = |(account, modseq): &(Uuid, i64)| format!("{}:{modseq}", account.simple());
    changes.chunks(NOTICES).map(|some| some.iter().map(one).collect::<Vec<_>>().join(",")).collect()
}

fn read(payload: &str) -> impl Iterator<Item = (Uuid, i64)> {
    payload.split(',').filter_map(|one| {
        let (account, modseq) = one.split_once(':')?;
        Some((Uuid::parse_str(account).ok()?, modseq.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_go_there_and_back_and_fit() {
        let changes: Vec<(Uuid, i64)> =
            (0..=NOTICES as u128).map(|n| (Uuid::from_u128(n << 64), i64::MAX - n as i64)).collect();
        let texts = payloads(changes.clone());
        assert_eq!(texts.len(), 2);
        assert!(texts[0].len() < 8000, "{}", texts[0].len());
        assert_eq!(texts.iter().flat_map(|text| read(text)).collect::<Vec<_>>(), changes);
        assert_eq!(read("x,1:2,,").count(), 0);
    }

    #[test]
    fn the_newest_number_counts() {
        let account = Uuid::from_u128(1);
        assert_eq!(newest([(account, 3), (account, 7), (account, 0)].into_iter()), [(account, 7)].into());
    }
}
