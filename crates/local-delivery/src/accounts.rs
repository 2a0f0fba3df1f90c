//! Which account an address is: asked of the router each time, which knows at once of an account that is deleted, or
//! made again with the same address.

use std::sync::Arc;

use posthorn_api::routing::v1::{
    ResolveMailboxRequest, resolve_mailbox_request::Mailbox as Wanted,
    routing_service_client::RoutingServiceClient,
};
use posthorn_api::{error, key};
use posthorn_service::{Channel, within};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::callers::ROUTER;

/// What the router knows of a mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: Uuid,
    /// In bytes; 0 is unlimited.
    pub(crate) quota: u64,
    pub(crate) tenant: Arc<str>,
}

/// The router.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    router: RoutingServiceClient<Channel>,
}

impl Accounts {
    pub(crate) fn new(router: Channel) -> Self {
        Self { router: RoutingServiceClient::new(router) }
    }

    /// The account of an address.
    pub(crate) async fn resolve(&self, address: &str) -> Result<Account, Status> {
        if address.is_empty() {
            return Err(error::invalid("mailbox", "is missing"));
        }
        let request = ResolveMailboxRequest { mailbox: Some(Wanted::Address(address.to_owned())) };
        let mut router = self.router.clone();
        let answer = match within(ROUTER, router.resolve_mailbox(request)).await {
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
