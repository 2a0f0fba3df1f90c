#![doc = include_str!("../README.md")]

mod standing;

use std::str::FromStr as _;
use std::time::Duration;

use serde::Deserialize;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};

pub use standing::{Lent, Standing};

/// Brings one schema up to date; as the owner of the database. Safe when several run at once. Migrations of a newer
/// version that are done already stay: neighbouring versions work with each other's schema (R9).
pub async fn migrate(url: &str, schema: &str, mut migrator: Migrator) -> Result<(), MigrateError> {
    migrator.create_schema(schema.to_owned());
    migrator.dangerous_set_table_name(format!("{schema}.migration"));
    migrator.set_ignore_missing(true);
    let mut connection = PgConnection::connect(url).await?;
    migrator.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// The section `database` of a service's settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// URL of the Postgres database: `postgres://role:password@host:port/database`.
    pub url: String,
    /// The most connections at once.
    pub max_connections: u32,
    /// How long to wait for a connection.
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
    /// How long a statement, or a batch of writes, may take.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
}

impl Database {
    /// What all connections of a service have in common; Postgres shows `name` for them.
    ///
    /// # Errors
    ///
    /// The URL is none.
    pub fn options(&self, name: &str) -> sqlx::Result<PgConnectOptions> {
        let limit = format!("{}ms", self.statement_timeout.as_millis());
        Ok(PgConnectOptions::from_str(&self.url)?.application_name(name).options([
            ("statement_timeout", limit.as_str()),
            ("idle_in_transaction_session_timeout", &limit),
            // The planner takes tables for as small as they were when they were last analysed, which may be empty, and
            // would rather read the whole of them, dead rows and all, than an index.
            ("enable_seqscan", "off"),
            ("jit", "off"),
            ("max_parallel_workers_per_gather", "0"),
            // R1: what was committed is on the disk.
            ("synchronous_commit", "on"),
        ]))
    }

    /// A pool of `connections`; none is made before it is needed, and Postgres need not be up yet.
    pub fn pool(&self, options: PgConnectOptions, connections: u32) -> PgPool {
        let limit = self.acquire_timeout / 4;
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(self.acquire_timeout)
            // Our own looks, with a limit, instead of sqlx' without one.
            .test_before_acquire(false)
            .before_acquire(move |connection, used| {
                Box::pin(async move {
                    if used.idle_for > TRUSTED {
                        limited(limit, connection.ping()).await?;
                    }
                    Ok(true)
                })
            })
            // A call that was broken off leaves its connection in the midst of an answer.
            .after_release(move |connection, _| {
                Box::pin(async move { limited(limit, connection.ping()).await.map(|()| true) })
            })
            .connect_lazy_with(options)
    }

    /// Standing connections, `connections` at most; none is made before it is needed.
    pub fn standing(&self, options: PgConnectOptions, connections: u32) -> Standing {
        // Few statements, again and again: for one message on an idle system, planning is half of their cost.
        let options = options.options([("plan_cache_mode", "force_generic_plan")]);
        Standing::new(options, connections, self.acquire_timeout, self.statement_timeout)
    }
}

/// A connection that has rested no longer than this is taken to be alive.
const TRUSTED: Duration = Duration::from_secs(1);

/// Waits so long for Postgres and no longer. The connection must not be used again after the error.
///
/// # Errors
///
/// [`sqlx::Error::Io`], `TimedOut`, when the time is over.
pub async fn limited<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer from Postgres in {limit:?}"),
        ))),
    }
}
