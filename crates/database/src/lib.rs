#![doc = include_str!("../README.md")]

mod standing;

use std::str::FromStr as _;
use std::time::Duration;

use posthorn_service::setting;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
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
    #[serde(deserialize_with = "postgres_url")]
    pub url: String,
    /// The most connections at once.
    #[serde(deserialize_with = "setting::positive")]
    pub max_connections: u32,
    /// How long to wait for a connection.
    #[serde(deserialize_with = "setting::period")]
    pub acquire_timeout: Duration,
    /// How long a statement, or a batch of writes, may take.
    #[serde(deserialize_with = "statement_timeout")]
    pub statement_timeout: Duration,
}

/// A setting that is the URL of a Postgres database.
///
/// # Errors
///
/// It is none.
pub fn postgres_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    // sqlx takes any scheme.
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(D::Error::custom("must begin with postgres://"));
    }
    PgConnectOptions::from_str(&url).map_err(D::Error::custom)?;
    Ok(url)
}

/// As Postgres has it: whole milliseconds, of which 0 would be no limit, in 31 bits.
fn statement_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let limit = setting::length(deserializer)?;
    if (1..=i32::MAX as u128).contains(&limit.as_millis()) {
        return Ok(limit);
    }
    Err(D::Error::custom("must be from 1ms to 24days"))
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

    /// How long a statement over a pool may take in all, the wait for a connection included. The pool itself waits for a
    /// Postgres that is gone without a word for as long as TCP does.
    pub fn patience(&self) -> Duration {
        self.acquire_timeout + self.answered_in()
    }

    /// Postgres' own word that a statement takes too long comes first: it says that nothing was done, silence does not.
    fn answered_in(&self) -> Duration {
        self.statement_timeout + (self.statement_timeout / 8).min(Duration::from_secs(1))
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
        Standing::new(options, connections, self.acquire_timeout, self.answered_in())
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

/// The next notice. Where nothing is heard for a heartbeat it is asked whether anybody is there: a connection whose other
/// end has vanished is silent, too.
///
/// # Errors
///
/// The connection is lost, or does not answer.
pub async fn heard(listener: &mut PgListener, heartbeat: Duration) -> sqlx::Result<PgNotification> {
    loop {
        match tokio::time::timeout(heartbeat, listener.try_recv()).await {
            Ok(Ok(Some(notice))) => return Ok(notice),
            Ok(Ok(None)) => return Err(sqlx::Error::Io(std::io::Error::other("the connection was lost"))),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                limited(heartbeat, sqlx::query("SELECT 1").execute(&mut *listener)).await?;
            }
        }
    }
}

/// Closes a pool at the end of its service. One of its connections may be silent: that one is left.
pub async fn close(pool: &PgPool) {
    let _ = tokio::time::timeout(Duration::from_secs(2), pool.close()).await;
}

/// Whether the way to Postgres is at fault, and not what was asked: the same may succeed over another connection.
pub fn is_broken(error: &sqlx::Error) -> bool {
    // A connection that is closed before Postgres has said a word, as a balancer without a server does, is for sqlx a
    // breach of the protocol.
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
    )
}

#[cfg(test)]
mod tests {
    use posthorn_service::config::{Sources, load};

    use super::*;

    const DEFAULTS: &str = "[database]\nurl = 'postgres://role@host/db'\nmax_connections = 2\nacquire_timeout = '5s'\n\
                            statement_timeout = '10s'\n";

    #[test]
    fn what_postgres_cannot_take_is_refused_by_name() {
        for (name, value, is_right) in [
            ("url", "postgres://role:secret@host:5432/db?sslmode=require", true),
            ("url", "postgresql:///db?host=/run/postgresql", true),
            ("url", "mysql://x", false),
            ("url", "host=127.0.0.1 dbname=x", false),
            ("url", "postgres://host:port/db", false),
            ("url", "postgres://host/db?sslmode=perhaps", false),
            ("url", "", false),
            ("max_connections", "0", false),
            ("acquire_timeout", "0s", false),
            ("statement_timeout", "24days", true),
            ("statement_timeout", "0s", false),
            ("statement_timeout", "999us", false),
            ("statement_timeout", "25days", false),
        ] {
            let name = format!("database.{name}");
            let command_line = vec![(name.clone(), value.to_owned())];
            let sources = Sources { command_line, ..Sources::default() };
            let mistakes = load::<Database>("database", DEFAULTS, &sources).err();
            let told: Vec<_> = mistakes.iter().flatten().map(|mistake| mistake.setting.as_str()).collect();
            let wanted: &[&str] = if is_right { &[] } else { &[&name] };
            assert_eq!(told, wanted, "{name} = {value}");
        }
    }
}
