//! Who may see and change what waits: somebody from a trusted network, or the holder of an operator's API key for it.

use std::time::Duration;

use posthorn_api::key::{self, Scope};
use posthorn_api::routing::v1::VerifyKeyRequest;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_service::{Channel, Networks, within};
use tonic::{Code, Request, Response, Status};

/// How long the router may take to say whose key it is.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Tells callers apart.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    trusted: Networks,
    router: RoutingServiceClient<Channel>,
}

/// A caller who may call.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    Trusted,
    /// By this key.
    Operator(String, Scope),
}

impl Callers {
    pub(crate) fn new(trusted: Networks, router: Channel) -> Self {
        Self { trusted, router: RoutingServiceClient::new(router) }
    }

    /// Who makes this request; refuses one who may not. A key is looked at where one is given, so that a trusted caller
    /// with a key has no more than the key.
    pub(crate) async fn of<T>(&self, request: &Request<T>, scope: Scope) -> Result<Caller, Status> {
        match key::bearer(request.metadata())? {
            Some(key) => {
                self.verify(key, scope).await?;
                Ok(Caller::Operator(key.to_owned(), scope))
            }
            None if self.trusted.have(request.remote_addr()) => Ok(Caller::Trusted),
            None => Err(key::missing()),
        }
    }

    /// The request, if its caller may make it.
    pub(crate) async fn admitted<T>(&self, request: Request<T>, scope: Scope) -> Result<T, Status> {
        self.of(&request, scope).await?;
        Ok(request.into_inner())
    }

    /// Refuses a caller whose key is not good any more; nobody is refused because the router is away.
    pub(crate) async fn recheck(&self, caller: &Caller) -> Result<(), Status> {
        match caller {
            Caller::Trusted => Ok(()),
            Caller::Operator(key, scope) => match self.verify(key, *scope).await {
                Err(status) if status.code() == Code::Unavailable => Ok(()),
                known => known,
            },
        }
    }

    async fn verify(&self, key: &str, scope: Scope) -> Result<(), Status> {
        let mut router = self.router.clone();
        let asked = router.verify_key(VerifyKeyRequest { key: key.to_owned() });
        let answer = within(TIMEOUT, asked).await;
        let verified = key::verified(answer.map(Response::into_inner))?;
        scope.of_operator(&verified.tenant_id, &verified.scopes)
    }
}
