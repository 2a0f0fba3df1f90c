//! The router, played.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use posthorn_api::routing::v1 as routing;
use posthorn_api::routing::v1::routing_service_server::{RoutingService, RoutingServiceServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// API keys that the router knows: the right one, and two that are for something else.
pub(crate) const KEY: &str = "pk_mailbox";
pub(crate) const OTHER_TENANT: &str = "pk_other_tenant";
pub(crate) const OTHER_SCOPE: &str = "pk_submit";

/// Knows the accounts that the test has made, and no more.
#[derive(Clone, Default)]
pub(super) struct Router {
    pub(super) accounts: Arc<Mutex<HashMap<String, (Uuid, u64)>>>,
    pub(super) mood: Arc<Mutex<Mood>>,
    /// How often it was asked which accounts there are, or whose a key is.
    pub(super) asked: Arc<AtomicU32>,
    pub(super) revoked: Arc<AtomicBool>,
}

impl Router {
    /// Serves it on a port of its own; where, as a URL.
    pub(super) async fn serve(self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(RoutingServiceServer::new(self));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        url
    }
}

/// How the router answers which accounts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Good,
    /// It does not answer.
    Away,
    /// It answers for some alone.
    Partial,
}

#[tonic::async_trait]
impl RoutingService for Router {
    async fn resolve_mailbox(
        &self,
        request: Request<routing::ResolveMailboxRequest>,
    ) -> Result<Response<routing::ResolveMailboxResponse>, Status> {
        let Some(routing::resolve_mailbox_request::Mailbox::Address(address)) = request.into_inner().mailbox
        else {
            return Err(Status::unimplemented("by address only"));
        };
        let accounts = self.accounts.lock().unwrap();
        let (id, quota_bytes) =
            accounts.get(&address).copied().ok_or(Status::not_found("no such account"))?;
        let account_id = Bytes::copy_from_slice(id.as_bytes());
        let tenant_id = "default".to_owned();
        Ok(Response::new(routing::ResolveMailboxResponse { account_id, address, tenant_id, quota_bytes }))
    }

    async fn accounts_exist(
        &self,
        request: Request<routing::AccountsExistRequest>,
    ) -> Result<Response<routing::AccountsExistResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let accounts = self.accounts.lock().unwrap();
        let is_known = |id: &Bytes| accounts.values().any(|(known, _)| known.as_bytes()[..] == id[..]);
        let mut exist: Vec<bool> = request.into_inner().account_ids.iter().map(is_known).collect();
        match *self.mood.lock().unwrap() {
            Mood::Good => {}
            Mood::Away => return Err(Status::unavailable("the directory is away")),
            Mood::Partial => exist.truncate(exist.len() - 1),
        }
        Ok(Response::new(routing::AccountsExistResponse { exist }))
    }

    async fn verify(
        &self,
        _: Request<routing::VerifyRequest>,
    ) -> Result<Response<routing::VerifyResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn resolve_destination(
        &self,
        _: Request<routing::ResolveDestinationRequest>,
    ) -> Result<Response<routing::ResolveDestinationResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn verify_key(
        &self,
        request: Request<routing::VerifyKeyRequest>,
    ) -> Result<Response<routing::VerifyKeyResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (tenant_id, scope) = match request.into_inner().key.as_str() {
            KEY if !self.revoked.load(Ordering::SeqCst) => ("default", "mailbox"),
            OTHER_TENANT => ("other", "mailbox"),
            OTHER_SCOPE => ("default", "submit"),
            _ => return Err(Status::unauthenticated("no such key")),
        };
        Ok(Response::new(routing::VerifyKeyResponse {
            key_id: "1".into(),
            tenant_id: tenant_id.into(),
            scopes: vec![scope.into()],
            cache_for: Some(posthorn_api::duration(Duration::from_millis(50))),
        }))
    }

    type WatchDirectoryStream = BoxStream<routing::WatchDirectoryResponse>;

    async fn watch_directory(
        &self,
        _: Request<Streaming<routing::WatchDirectoryRequest>>,
    ) -> Result<Response<Self::WatchDirectoryStream>, Status> {
        Err(Status::unimplemented("by address only"))
    }
}
