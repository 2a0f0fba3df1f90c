//! Who calls: somebody from a trusted network, or the holder of an API key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache;
use posthorn_api::key::{self, Scope};
use posthorn_api::period;
use posthorn_api::routing::v1::VerifyKeyRequest;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_service::{Channel, Networks, within};
use tonic::{Request, Response, Status};

use crate::config::Config;

/// How long the router may take to answer.
pub(crate) const ROUTER: Duration = Duration::from_secs(5);
/// No key is remembered longer, whatever the router says.
const REMEMBER_AT_MOST: Duration = Duration::from_secs(60);

/// A caller that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// May open any mailbox.
    Trusted,
    /// May open the mailboxes of this tenant, by this key.
    Tenant { tenant: Arc<str>, key: String },
}

/// Tells callers apart.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    trusted: Networks,
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
        Self { trusted: config.trusted_networks.clone(), router: RoutingServiceClient::new(router), known }
    }

    /// Who makes this request. A key is looked at where one is given, so that a trusted caller with a key has no more
    /// than the key.
    pub(crate) async fn of<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        match key::bearer(request.metadata())? {
            Some(key) => {
                let tenant = self.tenant(key).await?;
                Ok(Caller::Tenant { tenant, key: key.to_owned() })
            }
            None if self.trusted.have(request.remote_addr()) => Ok(Caller::Trusted),
            None => Err(key::missing()),
        }
    }

    /// Refuses a caller whose key is not good any more.
    pub(crate) async fn recheck(&self, caller: &Caller) -> Result<(), Status> {
        match caller {
            Caller::Trusted => Ok(()),
            Caller::Tenant { key, .. } => self.tenant(key).await.map(drop),
        }
    }

    async fn tenant(&self, key: &str) -> Result<Arc<str>, Status> {
        if let Some(known) = self.known.get(key).await
            && Instant::now() < known.until
        {
            return Ok(known.tenant);
        }
        let mut router = self.router.clone();
        let asked = router.verify_key(VerifyKeyRequest { key: key.to_owned() });
        let answer = within(ROUTER, asked).await;
        let verified = key::verified(answer.map(Response::into_inner))?;
        Scope::Mailbox.of(&verified.scopes)?;
        let tenant: Arc<str> = verified.tenant_id.into();
        let until = Instant::now() + verified.cache_for.map(period).unwrap_or_default();
        self.known.insert(key.to_owned(), Known { tenant: Arc::clone(&tenant), until }).await;
        Ok(tenant)
    }
}
