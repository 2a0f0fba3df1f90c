//! Connections that stay open and are lent without asking anybody.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{TRUSTED, is_broken, limited};

/// Connections that stay open between uses.
#[derive(Debug)]
pub struct Standing {
    options: PgConnectOptions,
    /// How long a connection may take to be there.
    patience: Duration,
    /// How long what is done with one may take.
    limit: Duration,
    resting: Mutex<Vec<Resting>>,
    free: Semaphore,
}

#[derive(Debug)]
struct Resting {
    connection: PgConnection,
    since: Instant,
    planned: Instant,
}

/// How long Postgres may go by plans that it has made once. Those for a table that was empty then are to read the whole
/// of it, and it would keep to them until the table is analysed, while a hundred thousand rows come in.
const PLANS: Duration = Duration::from_secs(5);

impl Standing {
    pub(crate) fn new(
        options: PgConnectOptions,
        connections: u32,
        patience: Duration,
        limit: Duration,
    ) -> Self {
        let free = Semaphore::new(connections as usize);
        Self { options, patience, limit, resting: Mutex::default(), free }
    }

    /// Lends a connection: one that rests, or a new one. Dropped, it is closed; [`Lent::keep`] gives it back.
    ///
    /// # Errors
    ///
    /// None was free in time ([`sqlx::Error::PoolTimedOut`]), or Postgres cannot be reached ([`sqlx::Error::Io`],
    /// `NotConnected`): in either case nothing was done.
    pub async fn lend(&self) -> sqlx::Result<Lent<'_>> {
        let free = tokio::time::timeout(self.patience, self.free.acquire()).await;
        let permit = free.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let lent = |connection, planned| Lent { connection, planned, standing: self, _permit: permit };
        let rested = self.resting().pop();
        if let Some(rested) = rested {
            match limited(self.patience / 4, rested.refreshed()).await {
                Ok(Resting { connection, planned, .. }) => return Ok(lent(connection, planned)),
                // Those below it have rested longer.
                Err(_) => self.resting().clear(),
            }
        }
        let connection = limited(self.patience, PgConnection::connect_with(&self.options)).await;
        Ok(lent(connection.map_err(not_connected)?, Instant::now()))
    }

    /// Does what is to be done with a connection, within the time that it may take, and says what came of it: the
    /// connection stays open when that was success.
    ///
    /// # Errors
    ///
    /// What `work` fails with, or that Postgres cannot be reached, or did not answer in time: then nobody knows what
    /// has become of the work.
    pub async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let mut lent = self.lend().await?;
        let done = limited(self.limit, work(&mut lent)).await?;
        lent.keep();
        Ok(done)
    }

    /// Closes those that rest.
    pub async fn close(&self) {
        let resting = std::mem::take(&mut *self.resting());
        for rested in resting {
            let _ = limited(Duration::from_secs(1), rested.connection.close()).await;
        }
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Resting>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Postgres could not be reached, or starts or stops just now: nothing was asked of it.
fn not_connected(error: sqlx::Error) -> sqlx::Error {
    let away = match &error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        error => is_broken(error),
    };
    if away { sqlx::Error::Io(io::Error::new(io::ErrorKind::NotConnected, error)) } else { error }
}

impl Resting {
    /// Asks whether it is still there, if that is not plain; makes Postgres forget plans that may be out of date.
    async fn refreshed(mut self) -> sqlx::Result<Self> {
        if self.planned.elapsed() > PLANS {
            self.connection.execute("DISCARD PLANS").await?;
            self.planned = Instant::now();
        } else if self.since.elapsed() > TRUSTED {
            self.connection.ping().await?;
        }
        Ok(self)
    }
}

/// A connection that was lent; closed when dropped.
#[derive(Debug)]
pub struct Lent<'a> {
    connection: PgConnection,
    planned: Instant,
    standing: &'a Standing,
    _permit: SemaphorePermit<'a>,
}

impl Lent<'_> {
    /// Gives the connection back, no transaction open on it and no answer outstanding.
    pub fn keep(self) {
        let Self { connection, planned, .. } = self;
        self.standing.resting().push(Resting { connection, since: Instant::now(), planned });
    }
}

impl Deref for Lent<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
