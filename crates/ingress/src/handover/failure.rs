//! What it means when the queue does not say that it has a message.

use std::error::Error as _;

use posthorn_api::error;
use posthorn_mail::Status;

use super::NotKept;

/// Why a call did not hand a message over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The queue said why not.
    Refused(Status),
    /// The idempotency key came with another request before.
    KeyConflict,
    /// The queue has no room.
    Full,
    /// The queue says that it could not keep it.
    Away,
    /// The queue was not reached.
    NotSent,
    /// The queue may have kept it.
    Unknown,
}

impl Failure {
    /// What it comes to for a message that the queue cannot have: it has not been told the end of it.
    pub(crate) fn of_unfinished(self) -> NotKept {
        match self {
            Self::Refused(status) => NotKept::Refused(status),
            Self::KeyConflict => NotKept::KeyConflict,
            Self::Full => NotKept::Full,
            Self::Away | Self::NotSent | Self::Unknown => NotKept::Away,
        }
    }
}

/// What a failed call means for its messages. Logged here, once a call.
pub(crate) fn failure(status: &tonic::Status) -> Failure {
    tracing::warn!(code = ?status.code(), reason = status.message(), "the queue takes no messages");
    metrics::counter!("posthorn_ingress_queue_failures_total").increment(1);
    if status.code() == tonic::Code::ResourceExhausted {
        return Failure::Full;
    }
    match error::reason(status).as_deref() {
        Some("OUTCOME_UNKNOWN" | "STOPPING") => Failure::Unknown,
        Some(_) => Failure::Away,
        None if status.code() == tonic::Code::InvalidArgument => Failure::Away,
        None if was_not_connected(status) => Failure::NotSent,
        None => Failure::Unknown,
    }
}

fn was_not_connected(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_queue_says_itself_is_believed() {
        let said = |code, reason| failure(&error::status(code, reason, "text"));
        assert_eq!(said(tonic::Code::Unavailable, "STORE_AWAY"), Failure::Away);
        assert_eq!(said(tonic::Code::Unavailable, "STOPPING"), Failure::Unknown);
        assert_eq!(said(tonic::Code::Unknown, "OUTCOME_UNKNOWN"), Failure::Unknown);
        assert_eq!(failure(&tonic::Status::unavailable("connection reset")), Failure::Unknown);
        assert_eq!(failure(&tonic::Status::deadline_exceeded("no answer")), Failure::Unknown);
        let refused = tonic::ConnectError("connection refused".into());
        assert_eq!(failure(&tonic::Status::from_error(Box::new(refused))), Failure::NotSent);
        assert_eq!(failure(&tonic::Status::resource_exhausted("full")), Failure::Full);
    }
}
