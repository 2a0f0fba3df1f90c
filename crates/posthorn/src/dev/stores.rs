//! The private Postgres and Redis of `posthorn dev`.

use std::fs::File;
use std::path::Path;

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
    _lock: File,
}

impl Stores {
    /// Starts both below `data`, which is made if need be.
    pub(super) async fn start(data: &Path, ports: &Ports) -> Result<Self> {
        std::fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
        let lock = File::create(data.join("lock")).context("creating the lock")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another `posthorn dev` runs in {}", data.display()))?;
        let (postgres_dir, redis_dir) = (data.join("postgres"), data.join("redis"));
        let (postgres_port, redis_port) = (ports.postgres(), ports.redis());
        let postgres = tokio::task::spawn_blocking(move || {
            Postgres::start(&postgres_dir, postgres_port, Durability::Full)
        });
        let redis = tokio::task::spawn_blocking(move || Redis::start(&redis_dir, redis_port));
        let (postgres, redis) = tokio::join!(postgres, redis);
        Ok(Self { postgres: postgres??, redis: redis??, _lock: lock })
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
