//! The directory in Postgres: schema `directory`, one function per statement, by subject.

pub(crate) mod accounts;
pub(crate) mod aliases;
pub(crate) mod domains;
pub(crate) mod keys;
pub(crate) mod lists;
pub(crate) mod lookup;
pub(crate) mod routes;
pub(crate) mod tenants;

use posthorn_database::Database;
use posthorn_mail::Address;
use sqlx::PgPool;

/// Why a statement did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The name is taken.
    #[error("there is one by that name already")]
    Taken,
    /// There is nothing by that name.
    #[error("there is none by that name")]
    NotFound,
    /// Something else needs it, or it lacks something.
    #[error("{0}")]
    Precondition(&'static str),
    /// Postgres is away or overloaded: the same call may succeed later.
    #[error("the directory cannot be reached: {0}")]
    Unavailable(sqlx::Error),
    /// A mistake of ours: the statement or what is stored is wrong.
    #[error("the directory is broken: {0}")]
    Broken(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::Database(error) if error.is_unique_violation() => Self::Taken,
            // Classes 22, 23, 42: data, constraint, statement. All else is the server's condition, which may change.
            sqlx::Error::Database(error)
                if error
                    .code()
                    .is_none_or(|code| !["22", "23", "42"].iter().any(|c| code.starts_with(c))) =>
            {
                Self::Unavailable(sqlx::Error::Database(error))
            }
            error if posthorn_database::is_broken(&error) => Self::Unavailable(error),
            error => Self::Broken(error.to_string()),
        }
    }
}

/// Says what a violated foreign key means at this statement.
pub(crate) fn or_precondition(meaning: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |error| match &error {
        sqlx::Error::Database(database) if database.is_foreign_key_violation() => {
            Error::Precondition(meaning)
        }
        _ => error.into(),
    }
}

/// The connections to the database; none is made before it is needed.
pub(crate) fn pool(database: &Database) -> Result<PgPool, Error> {
    let options = database
        .options("posthorn-router")
        .map_err(|e| Error::Broken(format!("router.database.url: {e}")))?;
    Ok(database.pool(options, database.max_connections))
}

/// Whether the directory can be asked.
pub(crate) async fn ping(pool: &PgPool) -> Result<(), Error> {
    sqlx::query("SELECT FROM directory.tenants LIMIT 1").execute(pool).await?;
    Ok(())
}

/// NOT_FOUND when a statement that was to change one row changed none.
fn one_row(done: &sqlx::postgres::PgQueryResult) -> Result<(), Error> {
    if done.rows_affected() == 0 { Err(Error::NotFound) } else { Ok(()) }
}

/// Reads an address as it is stored.
fn stored_address(text: &str) -> Result<Address, Error> {
    text.parse().map_err(|e| Error::Broken(format!("stored address {text:?}: {e}")))
}
