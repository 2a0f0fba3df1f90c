//! The ledger in Postgres: what is still owed. One function per statement, by subject in `spool/`.

pub(crate) mod admin;
pub(crate) mod find;
pub(crate) mod insert;
pub(crate) mod load;
pub(crate) mod trace;
pub(crate) mod update;

use posthorn_api::mail::v1::Origin;
use posthorn_mail::{Body, MessageId, Notify, Ret};
use time::OffsetDateTime;

use crate::schedule::Flow;

pub(crate) use insert::{KnownKey, NewKey, NewMessage};

/// A message, as the ledger has it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: MessageId,
    /// Empty: the null sender.
    pub(crate) sender: String,
    pub(crate) received_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) size: u64,
    pub(crate) body: Body,
    pub(crate) smtputf8: bool,
    pub(crate) ret: Option<Ret>,
    pub(crate) envelope_id: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) traceparent: String,
    pub(crate) flow: Flow,
    pub(crate) held: bool,
    pub(crate) poison: bool,
    /// Ages for delay notices that it has reached.
    pub(crate) noticed: usize,
    /// Recipients so far.
    pub(crate) recipients: u32,
    /// Those that have not ended.
    pub(crate) pending: u32,
    pub(crate) maybe_local: bool,
}

/// Brings the schema `spool` up to date; as the owner of the database, after `posthorn_content::migrate`. Safe when
/// several run at once.
pub async fn migrate(url: &str) -> Result<(), sqlx::migrate::MigrateError> {
    posthorn_database::migrate(url, "spool", sqlx::migrate!()).await
}

/// Whether an error means that Postgres, or the way to it, is away, and not that the statement is wrong.
pub(crate) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // Class 08 connection, 40 rolled back (deadlock, serialization), 53 resources, 57 operator (shutdown, cancel).
        sqlx::Error::Database(error) => error
            .code()
            .and_then(|code| code.get(..2).map(|class| ["08", "40", "53", "57"].contains(&class)))
            .unwrap_or(false),
        error => posthorn_database::is_broken(error),
    }
}

fn notify_column(notify: Option<Notify>) -> Option<i16> {
    Some(match notify? {
        Notify::Never => 0,
        Notify::On { success, failure, delay } => {
            i16::from(success) | i16::from(failure) << 1 | i16::from(delay) << 2
        }
    })
}

fn notify_of(column: Option<i16>) -> Option<Notify> {
    Some(match column? {
        0 => Notify::Never,
        bits => Notify::On { success: bits & 1 != 0, failure: bits & 2 != 0, delay: bits & 4 != 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_goes_there_and_back() {
        for bits in 0..8 {
            assert_eq!(notify_column(notify_of(Some(bits))), Some(bits));
        }
        assert_eq!(notify_column(notify_of(None)), None);
        assert_eq!(notify_of(Some(3)), Some(Notify::On { success: true, failure: true, delay: false }));
    }
}
