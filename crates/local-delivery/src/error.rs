//! What can go wrong with a call, and its gRPC status.

use std::time::Duration;

use posthorn_api::error;
use tonic::{Code, Status};

use crate::store::{self, Kind};

/// Why a call to a mailbox fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No folder of that name.
    #[error("the mailbox has no such folder")]
    NoFolder,
    /// No message with that UID.
    #[error("the folder has no such message")]
    NoMessage,
    /// Another folder has that name.
    #[error("there is a folder of that name already")]
    FolderExists,
    /// RFC 3501 §6.3.4, §6.3.5.
    #[error("INBOX can be neither renamed nor deleted")]
    Inbox,
    /// It would be its own parent.
    #[error("a folder cannot be moved below itself")]
    BelowItself,
    /// The limit of folders is reached.
    #[error("the mailbox has as many folders as it may have")]
    TooManyFolders,
    /// The quota leaves no room.
    #[error("the mailbox is full")]
    Full,
    /// A message above the limit.
    #[error("the message is larger than a mailbox or an append may take")]
    TooLarge,
    /// The mod-sequence to go on from is too old.
    #[error("what was expunged since then is no longer recorded: read the folders anew")]
    TooOld,
    /// An upload that took so long that its bytes may have been collected.
    #[error("the upload took too long")]
    TooSlow,
    /// Postgres.
    #[error("the mailbox store failed: {0}")]
    Store(#[from] sqlx::Error),
}

const SOON: Duration = Duration::from_secs(1);

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::NoFolder => error::status(Code::NotFound, "NO_SUCH_FOLDER", text),
            Failure::NoMessage => error::status(Code::NotFound, "NO_SUCH_MESSAGE", text),
            Failure::FolderExists => error::status(Code::AlreadyExists, "FOLDER_EXISTS", text),
            Failure::Inbox => error::status(Code::FailedPrecondition, "INBOX_STAYS", text),
            Failure::BelowItself => error::status(Code::FailedPrecondition, "FOLDER_BELOW_ITSELF", text),
            Failure::TooManyFolders => error::status(Code::ResourceExhausted, "TOO_MANY_FOLDERS", text),
            Failure::Full => error::status(Code::ResourceExhausted, "MAILBOX_FULL", text),
            Failure::TooLarge => error::status(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", text),
            Failure::TooOld => error::status(Code::OutOfRange, "MODSEQ_TOO_OLD", text),
            Failure::TooSlow => error::status(Code::DeadlineExceeded, "UPLOAD_TOO_SLOW", text),
            Failure::Store(reason) => store_status(&reason),
        }
    }
}

fn store_status(reason: &sqlx::Error) -> Status {
    tracing::warn!(%reason, "a call failed in the store");
    match store::kind(reason) {
        Kind::Away | Kind::Victim => {
            error::unavailable("STORE_AWAY", "the mailbox store cannot be reached", SOON)
        }
        // What it said may hold a piece of somebody's data.
        Kind::Broken => error::status(Code::Internal, "STORE_FAILED", "the mailbox store failed"),
    }
}
