//! Who calls: somebody from a trusted network, or the holder of an API key.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use moka::future::Cache;
use posthorn_api::routing::v1::VerifyKeyRequest;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_api::{error, period};
use posthorn_service::Channel;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use crate::config::Config;

/// What a key must be for.
const SCOPE: &str = "mailbox";
/// No key is remembered longer, whatever the router says.
const REMEMBER_AT_MOST: Duration = Duration::from_secs(60);

/// A caller that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// May open any mailbox.
    Trusted,
    /// May open the mailboxes of this tenant.
    Tenant(Arc<str>),
}

/// Tells callers apart.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    trusted: Arc<[IpNet]>,
    router: RoutingServiceClient<Channel>,
    known: Cache<String, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    tenant: Arc<str>,
    until: Instant,
}

impl Callers {
    pub(crate) fn new(router: Channel, config: &Config) -> Self {
        let known =
            Cache::builder().max_capacity(config.mailbox.remember).time_to_live(REMEMBER_AT_MOST).build();
        Self {
            trusted: config.trusted_networks.clone().into(),
            router: RoutingServiceClient::new(router),
            known,
        }
    }

    /// Who makes this request. A key is looked at where one is given, so that a trusted caller with a key has no more
    /// than the key.
    pub(crate) async fn of<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        match key(request.metadata())? {
            Some(key) => self.tenant(key).await.map(Caller::Tenant),
            None if is_trusted(&self.trusted, request.remote_addr()) => Ok(Caller::Trusted),
            None => Err(error::status(Code::Unauthenticated, "API_KEY_MISSING", "an API key is needed")),
        }
    }

    async fn tenant(&self, key: &str) -> Result<Arc<str>, Status> {
        if let Some(known) = self.known.get(key).await
            && Instant::now() < known.until
        {
            return Ok(known.tenant);
        }
        let request = VerifyKeyRequest { key: key.to_owned() };
        let verified = match self.router.clone().verify_key(request).await {
            Ok(verified) => verified.into_inner(),
            Err(status) if error::is_temporary(&status) => {
                let text = "the directory cannot be reached";
                return Err(error::unavailable("DIRECTORY_AWAY", text, Duration::from_secs(1)));
            }
            Err(_) => {
                let text = "the API key is unknown, expired or revoked";
                return Err(error::status(Code::Unauthenticated, "API_KEY_REFUSED", text));
            }
        };
        if !verified.scopes.iter().any(|scope| scope == SCOPE) {
            let text = "the API key is not for mailboxes";
            return Err(error::status(Code::PermissionDenied, "SCOPE_MISSING", text));
        }
        let tenant: Arc<str> = verified.tenant_id.into();
        let until = Instant::now() + verified.cache_for.map(period).unwrap_or_default();
        self.known.insert(key.to_owned(), Known { tenant: Arc::clone(&tenant), until }).await;
        Ok(tenant)
    }
}

/// The key of `authorization: Bearer KEY` (RFC 6750 §2.1), if the caller gives one.
fn key(metadata: &MetadataMap) -> Result<Option<&str>, Status> {
    let Some(value) = metadata.get("authorization") else { return Ok(None) };
    let scheme_and_key = value.to_str().ok().and_then(|value| value.split_once(' '));
    match scheme_and_key {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") && !key.is_empty() => Ok(Some(key)),
        _ => Err(error::status(
            Code::Unauthenticated,
            "API_KEY_MALFORMED",
            "authorization must be Bearer and a key",
        )),
    }
}

fn is_trusted(networks: &[IpNet], peer: Option<SocketAddr>) -> bool {
    peer.is_some_and(|peer| networks.iter().any(|network| network.contains(&peer.ip().to_canonical())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_what_stands_behind_bearer() {
        for (value, want) in [
            (None, Ok(None)),
            (Some("Bearer pk_1"), Ok(Some("pk_1"))),
            (Some("bearer pk_1"), Ok(Some("pk_1"))),
            (Some("Basic eDp5"), Err(Code::Unauthenticated)),
            (Some("Bearer "), Err(Code::Unauthenticated)),
            (Some("pk_1"), Err(Code::Unauthenticated)),
        ] {
            let mut metadata = MetadataMap::new();
            if let Some(value) = value {
                metadata.insert("authorization", value.parse().unwrap());
            }
            assert_eq!(key(&metadata).map_err(|status| status.code()), want, "{value:?}");
        }
    }

    #[test]
    fn a_trusted_network_is_told_by_the_address() {
        let networks = ["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        for (peer, trusted) in [
            ("127.3.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("192.0.2.1:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            assert_eq!(is_trusted(&networks, Some(peer.parse().unwrap())), trusted, "{peer}");
        }
        assert!(!is_trusted(&networks, None));
    }
}
