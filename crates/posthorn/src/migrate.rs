//! `posthorn migrate`: the database's schemas, and the roles that the services log in with.

use std::time::Duration;

use anyhow::{Context as _, Result};
use posthorn_service::config::{self, Mistake, Sources};
use posthorn_service::setting;
use serde::Deserialize;
use sqlx::migrate::MigrateDatabase as _;
use sqlx::{Connection as _, PgConnection, Postgres};

use crate::settings::{self, SettingsArgs};

/// The commented defaults of the section `[migrate]`.
pub(crate) const DEFAULTS: &str = include_str!("migrate.toml");

/// The roles that the services log in with, each with rights on its own schema alone (R6).
pub(crate) const ROLES: [&str; 3] = ["posthorn_queue", "posthorn_router", "posthorn_local_delivery"];

/// The section `[migrate]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The database, as a role that may create roles and schemas.
    database: Database,
    passwords: Passwords,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Database {
    #[serde(deserialize_with = "posthorn_database::postgres_url")]
    url: String,
    #[serde(deserialize_with = "setting::length")]
    wait: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Passwords {
    queue: String,
    router: String,
    local_delivery: String,
}

impl Config {
    pub(crate) fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        config::load("migrate", DEFAULTS, sources)
    }
}

/// Migrates as the settings say.
pub(crate) async fn run(args: &SettingsArgs) -> Result<()> {
    let sources = args.sources()?;
    let config = Config::load(&sources).map_err(|m| settings::refused(&m))?;
    wait_for_database(&config.database).await?;
    migrate(&config.database.url).await?;
    let mut connection = PgConnection::connect(&config.database.url).await?;
    let passwords = &config.passwords;
    for (role, password) in
        ROLES.into_iter().zip([&passwords.queue, &passwords.router, &passwords.local_delivery])
    {
        allow_login(&mut connection, role, password).await?;
    }
    settings::say("the database is up to date")
}

async fn wait_for_database(database: &Database) -> Result<()> {
    let deadline = tokio::time::Instant::now() + database.wait;
    loop {
        match Postgres::database_exists(&database.url).await {
            Ok(_) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(error)
                    .with_context(|| format!("Postgres did not answer within {:?}", database.wait));
            }
            Err(error) => settings::say_error(&format!("waiting for Postgres: {error}")),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Makes the database if it is missing, and every schema in it; each role exists afterwards.
pub(crate) async fn migrate(url: &str) -> Result<()> {
    if !Postgres::database_exists(url).await.context("asking Postgres for the database")? {
        Postgres::create_database(url).await.context("making the database")?;
    }
    posthorn_content::migrate(url).await.context("the schema of contents")?;
    posthorn_queue::migrate(url).await.context("the schema of the queue")?;
    posthorn_router::migrate(url).await.context("the schema of the directory")?;
    posthorn_local_delivery::migrate(url).await.context("the schema of the mailboxes")
}

/// Lets a role log in, with a password unless that is empty.
pub(crate) async fn allow_login(connection: &mut PgConnection, role: &str, password: &str) -> Result<()> {
    // ALTER ROLE takes no parameters: Postgres itself quotes the words.
    let statement: String = if password.is_empty() {
        sqlx::query_scalar("SELECT format('ALTER ROLE %I LOGIN', $1)")
            .bind(role)
            .fetch_one(&mut *connection)
            .await
    } else {
        sqlx::query_scalar("SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1, $2)")
            .bind(role)
            .bind(password)
            .fetch_one(&mut *connection)
            .await
    }
    .context("asking Postgres to quote a role")?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(connection)
        .await
        .with_context(|| format!("letting {role} log in"))?;
    Ok(())
}
