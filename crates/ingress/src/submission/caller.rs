//! Who calls.

use std::net::{Ipv4Addr, SocketAddr};

use posthorn_api::error::{status, unavailable};
use tonic::{Code, Request, Status};

use super::{RETRY_AFTER, Submission};
use crate::incoming::Source;

/// The scope that a key must have.
const SCOPE: &str = "submit";

/// A caller who may submit.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) source: Source,
    /// Within which its idempotency keys are its own.
    pub(super) key_scope: String,
}

impl Submission {
    /// A program shows an API key, or calls from a trusted network. Both may send to other domains.
    pub(super) async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let unknown = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let client = request.remote_addr().unwrap_or(unknown);
        let mut source = Source {
            protocol: "GRPC",
            client: SocketAddr::new(client.ip().to_canonical(), client.port()),
            server: request.local_addr().unwrap_or(unknown),
            helo: None,
            tls: None,
            key: None,
        };
        if let Some(key) = bearer(request)? {
            let key = self.admission.verify_key(key).await.map_err(|error| match error.code() {
                Code::Unauthenticated => status(Code::Unauthenticated, "KEY_UNKNOWN", error.message()),
                _ => unavailable("ROUTER_AWAY", "the API key cannot be looked up", RETRY_AFTER),
            })?;
            if !key.scopes.iter().any(|scope| scope == SCOPE) {
                return Err(status(
                    Code::PermissionDenied,
                    "SCOPE_MISSING",
                    "the API key is not for submitting",
                ));
            }
            let key_scope = format!("tenant:{}", key.tenant_id);
            source.key = Some((key.key_id, key.tenant_id));
            return Ok(Caller { source, key_scope });
        }
        if self.trusted.contain(client.ip()) {
            return Ok(Caller { source, key_scope: "trusted".into() });
        }
        Err(status(Code::Unauthenticated, "KEY_MISSING", "an API key is needed: authorization: Bearer KEY"))
    }
}

/// The key of `authorization: Bearer KEY`.
fn bearer<T>(request: &Request<T>) -> Result<Option<&str>, Status> {
    let Some(value) = request.metadata().get("authorization") else { return Ok(None) };
    let key = value.to_str().ok().and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    key.map(Some).ok_or_else(|| {
        status(Code::Unauthenticated, "KEY_MALFORMED", "the form is authorization: Bearer KEY")
    })
}
