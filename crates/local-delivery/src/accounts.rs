//! Which account an address is: asked of the router, remembered for seconds.

use std::sync::Arc;

use moka::future::Cache;
use posthorn_api::routing::v1::{
    ResolveMailboxRequest, resolve_mailbox_request::Mailbox as Wanted,
    routing_service_client::RoutingServiceClient,
};
use posthorn_api::{error, key};
use posthorn_service::Channel;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::config::Mailbox;

/// What the router knows of a mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: Uuid,
    /// In bytes; 0 is unlimited.
    pub(crate) quota: u64,
    pub(crate) tenant: Arc<str>,
}

/// The router, and what it said lately.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    router: RoutingServiceClient<Channel>,
    known: Cache<String, Account>,
}

impl Accounts {
    pub(crate) fn new(router: Channel, config: &Mailbox) -> Self {
        let known = Cache::builder().max_capacity(config.remember).time_to_live(config.remember_for).build();
        Self { router: RoutingServiceClient::new(router), known }
    }

    /// The account of an address; many who ask for the same at once ask the router once.
    pub(crate) async fn resolve(&self, address: &str) -> Result<Account, Status> {
        if address.is_empty() {
            return Err(error::invalid("mailbox", "is missing"));
        }
        self.known
            .try_get_with_by_ref(address, self.ask(address))
            .await
            .map_err(|status: Arc<Status>| (*status).clone())
    }

    async fn ask(&self, address: &str) -> Result<Account, Status> {
        let request = ResolveMailboxRequest { mailbox: Some(Wanted::Address(address.to_owned())) };
        let mut router = self.router.clone();
        let answer = match router.resolve_mailbox(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {
                return Err(no_such_mailbox());
            }
            Err(status) => {
                tracing::warn!(code = ?status.code(), reason = status.message(), "cannot ask the router for a mailbox");
                return Err(key::directory_away());
            }
        };
        let id = Uuid::from_slice(&answer.account_id)
            .map_err(|_| error::status(Code::Internal, "BAD_DIRECTORY", "the directory named no account"))?;
        Ok(Account { id, quota: answer.quota_bytes, tenant: answer.tenant_id.into() })
    }
}

/// NOT_FOUND, also for the mailboxes of others: who may not read one is not told that it is there.
pub(crate) fn no_such_mailbox() -> Status {
    error::status(Code::NotFound, "NO_SUCH_MAILBOX", "there is no such mailbox")
}
