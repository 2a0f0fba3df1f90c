//! The one mapping of errors to gRPC statuses.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of every ErrorInfo.
const DOMAIN: &str = "posthorn";

/// INVALID_ARGUMENT that names the field (`"envelope.recipients[2].address"`) and what is wrong with it.
pub fn invalid(field: impl Into<String>, reason: impl ToString) -> Status {
    let (field, reason) = (field.into(), reason.to_string());
    let message = format!("{field}: {reason}");
    Status::with_error_details(
        Code::InvalidArgument,
        message,
        ErrorDetails::with_bad_request_violation(field, reason),
    )
}

/// A status with an ErrorInfo: `reason` is UPPER_SNAKE_CASE and stable, for programs; `message` is for people.
pub fn status(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, []))
}

/// UNAVAILABLE: something that this call needs is away; trying again after `retry_after` is right.
pub fn unavailable(reason: &'static str, message: impl Into<String>, retry_after: Duration) -> Status {
    retryable(Code::Unavailable, reason, message, retry_after)
}

/// RESOURCE_EXHAUSTED: a limit is reached; trying again after `retry_after` is right.
pub fn exhausted(reason: &'static str, message: impl Into<String>, retry_after: Duration) -> Status {
    retryable(Code::ResourceExhausted, reason, message, retry_after)
}

fn retryable(code: Code, reason: &'static str, message: impl Into<String>, retry_after: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(code, message, details)
}

/// The reason that the callee itself gave; what the transport makes of a broken connection has none.
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_error_details().error_info()?.clone();
    (info.domain == DOMAIN).then_some(info.reason)
}

/// Whether the callee says, or the lack of one means, that the same call may succeed later.
pub fn is_temporary(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named() {
        let status = invalid("envelope.sender", "the address has no domain");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "envelope.sender: the address has no domain");
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "envelope.sender");
    }

    #[test]
    fn only_the_callee_gives_a_reason() {
        assert_eq!(reason(&status(Code::Unknown, "WHY", "text")).as_deref(), Some("WHY"));
        assert_eq!(reason(&Status::unavailable("tcp connect error")), None);
    }

    #[test]
    fn a_retry_carries_its_delay() {
        let details =
            exhausted("SPOOL_FULL", "the spool is full", Duration::from_secs(7)).get_error_details();
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(7)));
    }
}
