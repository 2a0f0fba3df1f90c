//! The API key that comes with a call: how it is read, what it is for, and how a caller is refused whose key will not do.

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::error::{status, unavailable};
use crate::routing::v1::VerifyKeyResponse;

/// The tenant whose keys are the operators': they manage the directory and the queue of all tenants.
pub const OPERATOR: &str = "default";

/// When a caller whose key could not be looked up should come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a key may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Handing messages in.
    Submit,
    /// Reading and changing mailboxes.
    Mailbox,
    /// Managing the directory.
    Directory,
    /// Seeing and changing what waits in the queue.
    Queue,
    /// Following messages.
    Trace,
}

impl Scope {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Submit, Self::Mailbox, Self::Directory, Self::Queue, Self::Trace];

    /// As a key has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Mailbox => "mailbox",
            Self::Directory => "directory",
            Self::Queue => "queue",
            Self::Trace => "trace",
        }
    }

    /// Whether a key with these scopes is for this. PERMISSION_DENIED: it is not.
    pub fn of(self, scopes: &[String]) -> Result<(), Status> {
        if scopes.iter().any(|scope| scope == self.name()) {
            return Ok(());
        }
        let text = format!("the API key has not the scope {:?}", self.name());
        Err(status(Code::PermissionDenied, "SCOPE_MISSING", text))
    }

    /// Whether a key of this tenant with these scopes is an operator's for this. PERMISSION_DENIED: it is not.
    pub fn of_operator(self, tenant: &str, scopes: &[String]) -> Result<(), Status> {
        self.of(scopes)?;
        if tenant == OPERATOR {
            return Ok(());
        }
        let text = format!("this is for API keys of the tenant {OPERATOR:?} alone");
        Err(status(Code::PermissionDenied, "NOT_AN_OPERATOR", text))
    }
}

/// The key of `authorization: Bearer KEY` (RFC 6750 §2.1), if the caller gives one. UNAUTHENTICATED: it has another form.
pub fn bearer(metadata: &MetadataMap) -> Result<Option<&str>, Status> {
    let Some(value) = metadata.get("authorization") else { return Ok(None) };
    let scheme_and_key = value.to_str().ok().and_then(|value| value.split_once(' '));
    match scheme_and_key.map(|(scheme, key)| (scheme, key.trim())) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") && !key.is_empty() => Ok(Some(key)),
        _ => {
            let text = "the form is authorization: Bearer KEY";
            Err(status(Code::Unauthenticated, "API_KEY_MALFORMED", text))
        }
    }
}

/// UNAUTHENTICATED: there is no key, and the caller is not of those who need none.
pub fn missing() -> Status {
    let text = "an API key is needed: authorization: Bearer KEY";
    status(Code::Unauthenticated, "API_KEY_MISSING", text)
}

/// UNAUTHENTICATED: it is nobody's key, or not any more.
pub fn refused() -> Status {
    status(Code::Unauthenticated, "API_KEY_REFUSED", "the API key is unknown, expired or revoked")
}

/// UNAVAILABLE: nobody can say whose key it is, or what an address is.
pub fn directory_away() -> Status {
    unavailable("DIRECTORY_AWAY", "the directory cannot be reached", RETRY_AFTER)
}

/// What the router said about a key (`RoutingService.VerifyKey`), as the caller is to hear it: only what it refuses is
/// refused, anything else is "later".
pub fn verified(answer: Result<VerifyKeyResponse, Status>) -> Result<VerifyKeyResponse, Status> {
    answer.map_err(|error| match error.code() {
        Code::Unauthenticated => refused(),
        code => {
            tracing::warn!(?code, reason = error.message(), "the router does not say whose API key it is");
            directory_away()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::reason;

    #[test]
    fn the_key_is_what_stands_behind_bearer() {
        for (value, want) in [
            (None, Ok(None)),
            (Some("Bearer pk_1"), Ok(Some("pk_1"))),
            (Some("bearer  pk_1 "), Ok(Some("pk_1"))),
            (Some("Basic eDp5"), Err("API_KEY_MALFORMED")),
            (Some("Bearer "), Err("API_KEY_MALFORMED")),
            (Some("Bearer"), Err("API_KEY_MALFORMED")),
            (Some("pk_1"), Err("API_KEY_MALFORMED")),
        ] {
            let mut metadata = MetadataMap::new();
            if let Some(value) = value {
                metadata.insert("authorization", value.parse().unwrap());
            }
            let found = bearer(&metadata).map_err(|status| reason(&status).unwrap());
            assert_eq!(found, want.map_err(str::to_owned), "{value:?}");
        }
    }

    #[test]
    fn an_operators_key_has_the_scope_and_the_tenant() {
        let scopes = ["queue".to_owned(), "trace".to_owned()];
        for (scope, tenant, refused) in [
            (Scope::Queue, "default", None),
            (Scope::Trace, "default", None),
            (Scope::Queue, "acme", Some("NOT_AN_OPERATOR")),
            (Scope::Directory, "default", Some("SCOPE_MISSING")),
            (Scope::Directory, "acme", Some("SCOPE_MISSING")),
        ] {
            let found = scope.of_operator(tenant, &scopes).err().and_then(|status| reason(&status));
            assert_eq!(found.as_deref(), refused, "{scope:?} of {tenant}");
        }
    }

    #[test]
    fn a_router_that_is_away_refuses_no_key() {
        for (code, told) in [
            (Code::Unauthenticated, "API_KEY_REFUSED"),
            (Code::Unavailable, "DIRECTORY_AWAY"),
            (Code::Internal, "DIRECTORY_AWAY"),
        ] {
            let status = verified(Err(Status::new(code, "why"))).unwrap_err();
            assert_eq!(reason(&status).as_deref(), Some(told), "{code:?}");
        }
    }
}
