//! The private Postgres and Redis of `posthorn dev`.

use std::convert::Infallible;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use posthorn_stores::{Durability, Postgres, Redis};
use rustix::fs::{FlockOperation, flock};
use sqlx::{Connection as _, PgConnection};

use super::ports::Ports;
use crate::migrate;

/// Both stores, and the lock on their directory.
#[derive(Debug)]
pub(super) struct Stores {
    postgres: Postgres,
    redis: Redis,
    data: PathBuf,
    ports: Ports,
    _lock: File,
}

/// How long a store must be gone before it is started again: somebody else may be restarting it.
const GONE: Duration = Duration::from_secs(1);

impl Stores {
    /// Starts both below `data`, which is made if need be.
    pub(super) async fn start(data: &Path, ports: &Ports) -> Result<Self> {
        std::fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
        let lock = File::create(data.join("lock")).context("creating the lock")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another `posthorn dev` runs in {}", data.display()))?;
        let (postgres, redis) = tokio::join!(start_postgres(data, ports), start_redis(data, ports));
        Ok(Self { postgres: postgres?, redis: redis?, data: data.to_owned(), ports: *ports, _lock: lock })
    }

    /// Starts again what has ended by itself, for ever.
    pub(super) async fn keep(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(GONE).await;
            let (postgres, redis) = (self.postgres.has_ended(), self.redis.has_ended());
            if !postgres && !redis {
                continue;
            }
            tokio::time::sleep(GONE).await;
            if postgres && self.postgres.has_ended() {
                tracing::warn!("Postgres has ended: starting it again");
                replace(&mut self.postgres, start_postgres(&self.data, &self.ports).await);
            }
            if redis {
                tracing::warn!("Redis has ended: starting it again");
                replace(&mut self.redis, start_redis(&self.data, &self.ports).await);
            }
        }
    }

    /// Brings the schemas up to date and lets the services' roles log in.
    pub(super) async fn migrate(&self) -> Result<()> {
        let url = self.postgres.url("postgres", "posthorn");
        migrate::migrate(&url).await?;
        let mut connection = PgConnection::connect(&url).await?;
        for role in migrate::ROLES {
            migrate::allow_login(&mut connection, role, "").await?;
        }
        Ok(())
    }

    /// Stops both in order.
    pub(super) async fn stop(self) {
        let stop = move || {
            self.postgres.stop();
            self.redis.stop();
        };
        if let Err(reason) = tokio::task::spawn_blocking(stop).await {
            tracing::error!(%reason, "the stores did not stop in order");
        }
    }
}

pub(super) fn postgres_dir(data: &Path) -> PathBuf {
    data.join("postgres")
}

pub(super) fn redis_dir(data: &Path) -> PathBuf {
    data.join("redis")
}

async fn start_postgres(data: &Path, ports: &Ports) -> Result<Postgres> {
    let (dir, port) = (postgres_dir(data), ports.postgres());
    Ok(tokio::task::spawn_blocking(move || Postgres::start(&dir, port, Durability::Full)).await??)
}

async fn start_redis(data: &Path, ports: &Ports) -> Result<Redis> {
    let (dir, port) = (redis_dir(data), ports.redis());
    Ok(tokio::task::spawn_blocking(move || Redis::start(&dir, port)).await??)
}

/// What does not start now is tried again.
fn replace<T>(store: &mut T, started: Result<T>) {
    match started {
        Ok(started) => *store = started,
        Err(reason) => tracing::error!(reason = format!("{reason:#}"), "it does not start"),
    }
}
