//! The way to Postgres.

use std::sync::Arc;

use posthorn_database::{Database, Standing};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection, PgPool};

/// Brings the schema `mailbox` up to date; as the owner of the database. Safe when several run at once.
pub async fn migrate(url: &str) -> Result<(), sqlx::migrate::MigrateError> {
    posthorn_database::migrate(url, "mailbox", sqlx::migrate!()).await
}

/// The ways to Postgres. All connect as they are used: whether it answers is told by the first statement.
#[derive(Debug, Clone)]
pub(crate) struct Ways {
    /// The writers'.
    pub(crate) writing: Arc<Standing>,
    /// For what is not in the queue's ledger yet, so that nobody waits behind it.
    pub(crate) early: Arc<Standing>,
    /// Of those who wait for news.
    pub(crate) reading: Arc<Standing>,
    /// Of all other calls.
    pub(crate) pool: PgPool,
}

/// Shares the connections among the ways.
pub(crate) fn connect(database: &Database, writers: usize) -> Result<Ways, sqlx::Error> {
    let options = database.options("posthorn-local-delivery")?;
    let writers = u32::try_from(writers).unwrap_or(u32::MAX);
    let others = database.max_connections.saturating_sub(writers).saturating_sub(1);
    let reading = (others / 2).max(1);
    Ok(Ways {
        writing: Arc::new(database.standing(options.clone(), writers)),
        early: Arc::new(database.standing(options.clone(), 1)),
        reading: Arc::new(database.standing(options.clone(), reading)),
        pool: database.pool(options, others.saturating_sub(reading).max(1)),
    })
}

/// A connection to send notices by. They carry nothing that must last, so that their commits need not wait for the disk
/// while they hold up all others that notify.
pub(crate) fn connect_to_tell(database: &Database) -> Result<Standing, sqlx::Error> {
    Ok(database.standing(notices(database)?.options([("synchronous_commit", "off")]), 1))
}

/// A connection to hear notices by. One that is lost may be held by the library for as long as TCP believes in it: so
/// each is the only one of its pool.
pub(crate) fn connect_to_hear(database: &Database) -> Result<PgPool, sqlx::Error> {
    Ok(PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(database.acquire_timeout)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(notices(database)?))
}

fn notices(database: &Database) -> Result<PgConnectOptions, sqlx::Error> {
    database.options("posthorn-local-delivery notices")
}

/// Whether Postgres answers and has the schema.
pub(crate) async fn answers(standing: Arc<Standing>) -> Result<(), sqlx::Error> {
    let ask = async |connection: &mut PgConnection| {
        sqlx::query("SELECT FROM mailbox.account LIMIT 1").execute(connection).await.map(drop)
    };
    standing.with(ask).await
}

/// What can be done about a failed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Postgres chose this transaction as a victim: the same again may succeed at once.
    Victim,
    /// Postgres is away, starting, stopping or has no connection free: it comes back by itself.
    Away,
    /// The statement itself fails.
    Broken,
}

/// Tells failures apart (SQLSTATE classes of the PostgreSQL manual, appendix A).
pub(crate) fn kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // Serialization failure, deadlock, lock not available.
            Some("40001" | "40P01" | "55P03") => Kind::Victim,
            // Connection, too many connections and other resources, the operator stops the server.
            Some(code)
                if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) && code != "57014" =>
            {
                Kind::Away
            }
            _ => Kind::Broken,
        },
        error if posthorn_database::is_broken(error) => Kind::Away,
        _ => Kind::Broken,
    }
}
