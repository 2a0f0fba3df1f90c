//! The gRPC services: decode, call, encode.

pub(crate) mod directory;
mod field;
pub(crate) mod routing;

use std::time::Duration;

use posthorn_api::error::{status, unavailable};
use tonic::{Code, Status};

use crate::directory::Error;

/// What a caller is told of an error at `what` ("domain example.test").
pub(crate) fn failed(what: &str, error: Error) -> Status {
    match error {
        Error::Taken => status(Code::AlreadyExists, "TAKEN", format!("{what}: {error}")),
        Error::NotFound => status(Code::NotFound, "NOT_FOUND", format!("{what}: {error}")),
        Error::Precondition(_) => {
            status(Code::FailedPrecondition, "PRECONDITION", format!("{what}: {error}"))
        }
        Error::Unavailable(_) => {
            tracing::warn!(reason = %error, "a call could not be answered");
            unavailable("DIRECTORY_UNAVAILABLE", "the directory cannot be reached", Duration::from_secs(1))
        }
        Error::Broken(_) => {
            tracing::error!(reason = %error, "a call could not be answered");
            status(Code::Internal, "DIRECTORY_BROKEN", format!("{what}: {error}"))
        }
    }
}
