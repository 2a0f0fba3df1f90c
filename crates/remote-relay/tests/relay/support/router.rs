//! A router that answers as a test says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use posthorn_api::routing::v1::resolve_destination_response::Result as Answer;
use posthorn_api::routing::v1::routing_service_server::{RoutingService, RoutingServiceServer};
use posthorn_api::routing::v1::{
    AccountsExistRequest, AccountsExistResponse, Host, Hosts, ResolveDestinationRequest,
    ResolveDestinationResponse, ResolveMailboxRequest, ResolveMailboxResponse, VerifyKeyRequest,
    VerifyKeyResponse, VerifyRequest, VerifyResponse, WatchDirectoryRequest, WatchDirectoryResponse,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone, Default)]
pub(crate) struct Router(Arc<Mutex<HashMap<String, Answer>>>);

impl Router {
    pub(crate) async fn serve(self, incoming: TcpListenerStream) {
        tonic::transport::Server::builder()
            .add_service(RoutingServiceServer::new(self))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    }

    pub(crate) fn say(&self, domain: &str, answer: Answer) {
        self.0.lock().unwrap().insert(domain.to_owned(), answer);
    }

    /// These hosts in this order.
    pub(crate) fn hosts(&self, domain: &str, hosts: &[(&str, SocketAddr)]) {
        let host = |(name, address): &(&str, SocketAddr)| Host {
            name: (*name).to_owned(),
            addresses: vec![address.ip().to_string()],
            port: address.port().into(),
            by_route: false,
        };
        let hosts = hosts.iter().map(host).collect();
        self.say(domain, Answer::Hosts(Hosts { destination: "the destination".to_owned(), hosts }));
    }
}

#[tonic::async_trait]
impl RoutingService for Router {
    async fn resolve_destination(
        &self,
        request: Request<ResolveDestinationRequest>,
    ) -> Result<Response<ResolveDestinationResponse>, Status> {
        let answer = self.0.lock().unwrap().get(&request.into_inner().domain).cloned();
        let result = Some(answer.ok_or_else(|| Status::unavailable("the test has said nothing of it"))?);
        Ok(Response::new(ResolveDestinationResponse { result }))
    }

    async fn verify(&self, _: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }

    async fn resolve_mailbox(
        &self,
        _: Request<ResolveMailboxRequest>,
    ) -> Result<Response<ResolveMailboxResponse>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }

    async fn accounts_exist(
        &self,
        _: Request<AccountsExistRequest>,
    ) -> Result<Response<AccountsExistResponse>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }

    async fn verify_key(&self, _: Request<VerifyKeyRequest>) -> Result<Response<VerifyKeyResponse>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }

    type WatchDirectoryStream = BoxStream<WatchDirectoryResponse>;

    async fn watch_directory(
        &self,
        _: Request<Streaming<WatchDirectoryRequest>>,
    ) -> Result<Response<Self::WatchDirectoryStream>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }
}
