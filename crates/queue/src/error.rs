//! Why the queue cannot do something now, and what the caller is told.

use std::time::Duration;

use posthorn_api::error;
use tonic::Status;

/// What is to be tried again later.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    /// As many messages wait as may.
    #[error("the spool is full")]
    SpoolFull,
    /// More is handed in at once than can be written.
    #[error("too many messages are handed in at once")]
    Busy,
    /// Postgres, or the way to it, is away.
    #[error("the spool's database is away")]
    Store,
    /// A statement went wrong for another reason; it is in the log.
    #[error("the spool could not be read or written")]
    Internal,
    /// The connection to Postgres broke in a transaction: it may have been committed.
    #[error("the spool's database did not say whether it was kept")]
    InDoubt,
    /// The service ends.
    #[error("the queue is stopping")]
    Stopping,
}

impl Unavailable {
    /// What a failed statement comes to; the caller logs it.
    pub(crate) fn store(error: &sqlx::Error) -> Self {
        if crate::spool::is_away(error) { Self::Store } else { Self::Internal }
    }

    /// Whether what was asked for may have been done all the same.
    pub(crate) fn is_in_doubt(&self) -> bool {
        matches!(self, Self::InDoubt | Self::Stopping)
    }

    /// The same for a transaction that others must know the end of.
    pub(crate) fn transaction(error: &sqlx::Error) -> Self {
        let broken = match error {
            // Without a connection nothing was begun.
            sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::NotConnected,
            sqlx::Error::WorkerCrashed => true,
            // 08 connection, 57P operator: shut down, crashed.
            sqlx::Error::Database(error) => {
                error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
            }
            _ => false,
        };
        if broken { Self::InDoubt } else { Self::store(error) }
    }
}

impl From<Unavailable> for Status {
    fn from(unavailable: Unavailable) -> Self {
        let message = unavailable.to_string();
        match unavailable {
            Unavailable::SpoolFull => error::exhausted("SPOOL_FULL", message, Duration::from_secs(60)),
            Unavailable::Busy => error::exhausted("QUEUE_BUSY", message, Duration::from_secs(1)),
            Unavailable::Store => error::unavailable("STORE_AWAY", message, Duration::from_secs(5)),
            Unavailable::InDoubt => error::status(tonic::Code::Unknown, "OUTCOME_UNKNOWN", message),
            Unavailable::Stopping => error::unavailable("STOPPING", message, Duration::from_secs(1)),
            Unavailable::Internal => error::status(tonic::Code::Internal, "INTERNAL", message),
        }
    }
}

/// Logs what went wrong in a call that only reads or steers, and says it to the caller.
pub(crate) fn failed(error: sqlx::Error) -> Status {
    tracing::warn!(%error, "a statement failed");
    Unavailable::store(&error).into()
}
