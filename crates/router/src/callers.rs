//! Who may manage the directory: somebody from a trusted network, or the holder of an API key for it.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use posthorn_api::error::status;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::grpc::failed;
use crate::router::Router;

/// What a key must be for.
const SCOPE: &str = "directory";
/// The tenant whose keys manage the whole directory. Keys of other tenants manage nothing yet: a call does not say
/// whose it is.
const OPERATOR: &str = "default";

/// Tells callers apart.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    trusted: Arc<[IpNet]>,
}

impl Callers {
    pub(crate) fn new(trusted: &[IpNet]) -> Self {
        Self { trusted: trusted.into() }
    }

    /// Refuses a caller who may not. A key is looked at where one is given, so that a trusted caller with a key has no
    /// more than the key.
    pub(crate) async fn allow(
        &self,
        router: &Router,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
    ) -> Result<(), Status> {
        let Some(value) = metadata.get("authorization") else {
            return match peer {
                Some(peer) if self.is_trusted(peer) => Ok(()),
                _ => Err(status(Code::Unauthenticated, "API_KEY_MISSING", "an API key is needed")),
            };
        };
        let secret = value.to_str().ok().and_then(bearer).ok_or_else(|| {
            status(Code::Unauthenticated, "API_KEY_MALFORMED", "authorization must be Bearer and a key")
        })?;
        match router.key(secret).await.map_err(|error| failed("key", error))? {
            None => {
                let text = "the API key is unknown, expired or revoked";
                Err(status(Code::Unauthenticated, "API_KEY_REFUSED", text))
            }
            Some(key) if key.tenant_id == OPERATOR && key.scopes.iter().any(|scope| scope == SCOPE) => Ok(()),
            Some(_) => {
                let text = "the API key is not for managing the directory";
                Err(status(Code::PermissionDenied, "SCOPE_MISSING", text))
            }
        }
    }

    fn is_trusted(&self, peer: SocketAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&peer.ip().to_canonical()))
    }
}

/// The key of `Bearer KEY` (RFC 6750 §2.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}
