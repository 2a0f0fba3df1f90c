//! Who may manage the directory: somebody from a trusted network, or the holder of an operator's API key for it.

use posthorn_api::key::{self, Scope};
use posthorn_service::Networks;
use tonic::{Request, Status};

use crate::grpc::failed;
use crate::router::Router;

/// Tells callers apart.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    pub(crate) trusted: Networks,
}

impl Callers {
    /// Refuses a caller who may not. A key is looked at where one is given, so that a trusted caller with a key has no
    /// more than the key. Keys of other tenants manage nothing yet: a call does not say whose it is.
    pub(crate) async fn allow<T>(&self, router: &Router, request: &Request<T>) -> Result<(), Status> {
        match key::bearer(request.metadata())? {
            Some(secret) => {
                let key = router.key(secret).await.map_err(|error| failed("key", error))?;
                let key = key.ok_or_else(key::refused)?;
                Scope::Directory.of_operator(&key.tenant_id, &key.scopes)
            }
            None if self.trusted.have(request.remote_addr()) => Ok(()),
            None => Err(key::missing()),
        }
    }
}
