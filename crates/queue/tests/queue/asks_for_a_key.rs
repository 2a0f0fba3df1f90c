//! Operators from elsewhere need an API key of theirs; the services need none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use posthorn_api::error::reason;
use posthorn_api::queue::v1 as admin;
use posthorn_api::routing::v1 as routing;
use posthorn_api::routing::v1::routing_service_server::{RoutingService, RoutingServiceServer};
use posthorn_api::trace::v1 as trace;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::common::{LIMIT, Queue, Stores, message};

/// Knows a key by what it is called: `SCOPE` or `SCOPE@TENANT`.
#[derive(Debug, Clone, Default)]
struct Router {
    away: Arc<AtomicBool>,
    revoked: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl RoutingService for Router {
    async fn verify_key(
        &self,
        request: Request<routing::VerifyKeyRequest>,
    ) -> Result<Response<routing::VerifyKeyResponse>, Status> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the directory is away"));
        }
        let key = request.into_inner().key;
        let (scope, tenant_id) = key.split_once('@').unwrap_or((&key, "default"));
        if self.revoked.load(Ordering::SeqCst) || scope == "bogus" {
            return Err(Status::unauthenticated("no such key"));
        }
        Ok(Response::new(routing::VerifyKeyResponse {
            key_id: "1".into(),
            tenant_id: tenant_id.into(),
            scopes: vec![scope.into()],
            cache_for: None,
        }))
    }

    async fn verify(
        &self,
        _: Request<routing::VerifyRequest>,
    ) -> Result<Response<routing::VerifyResponse>, Status> {
        Err(Status::unimplemented("not for the queue"))
    }

    async fn resolve_destination(
        &self,
        _: Request<routing::ResolveDestinationRequest>,
    ) -> Result<Response<routing::ResolveDestinationResponse>, Status> {
        Err(Status::unimplemented("not for the queue"))
    }

    async fn accounts_exist(
        &self,
        _: Request<routing::AccountsExistRequest>,
    ) -> Result<Response<routing::AccountsExistResponse>, Status> {
        Err(Status::unimplemented("not for the queue"))
    }

    async fn resolve_mailbox(
        &self,
        _: Request<routing::ResolveMailboxRequest>,
    ) -> Result<Response<routing::ResolveMailboxResponse>, Status> {
        Err(Status::unimplemented("not for the queue"))
    }

    type WatchDirectoryStream = BoxStream<routing::WatchDirectoryResponse>;

    async fn watch_directory(
        &self,
        _: Request<Streaming<routing::WatchDirectoryRequest>>,
    ) -> Result<Response<Self::WatchDirectoryStream>, Status> {
        Err(Status::unimplemented("not for the queue"))
    }
}

async fn start(stores: &Stores, trusted: &str) -> (Queue, Router) {
    let router = Router::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tonic::transport::Server::builder().add_service(RoutingServiceServer::new(router.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let settings = [
        ("queue.router", url.as_str()),
        ("queue.trusted_networks", trusted),
        ("queue.trace.recheck_watchers_every", "50ms"),
    ];
    (stores.queue(&settings).await, router)
}

fn with_key<T>(message: T, key: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(key) = key {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {key}").parse().expect("a key is text"));
    }
    request
}

async fn stats(queue: &Queue, key: Option<&str>) -> Result<(), Status> {
    queue.admin().stats(with_key(admin::StatsRequest::default(), key)).await.map(drop)
}

async fn follow(queue: &Queue, key: Option<&str>) -> Result<(), Status> {
    let id = posthorn_mail::MessageId::generate().to_string();
    queue.trace().trace_message(with_key(trace::TraceMessageRequest { message_id: id }, key)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_need_an_operators_key() {
    let stores = Stores::new().await;
    let (queue, router) = start(&stores, "[]").await;
    for (key, to_queue, to_trace) in [
        (None, "API_KEY_MISSING", "API_KEY_MISSING"),
        (Some("bogus"), "API_KEY_REFUSED", "API_KEY_REFUSED"),
        (Some("queue@acme"), "NOT_AN_OPERATOR", "SCOPE_MISSING"),
        (Some("trace@acme"), "SCOPE_MISSING", "NOT_AN_OPERATOR"),
        (Some("directory"), "SCOPE_MISSING", "SCOPE_MISSING"),
        (Some("queue"), "", "SCOPE_MISSING"),
        // The message is not known.
        (Some("trace"), "SCOPE_MISSING", ""),
    ] {
        let told = |answer: Result<(), Status>| answer.err().and_then(|s| reason(&s)).unwrap_or_default();
        assert_eq!(told(stats(&queue, key).await), to_queue, "{key:?}");
        assert_eq!(told(follow(&queue, key).await), to_trace, "{key:?}");
    }
    let everything = admin::Filter { sender: "a@example.net".into(), ..Default::default() };
    let target = admin::Target { target: Some(admin::target::Target::Filter(everything)) };
    let bounce = admin::BounceRequest { target: Some(target), ..Default::default() };
    let refused = queue.admin().bounce(bounce).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    router.away.store(true, Ordering::SeqCst);
    let later = stats(&queue, Some("queue")).await.unwrap_err();
    assert_eq!((later.code(), reason(&later).as_deref()), (Code::Unavailable, Some("DIRECTORY_AWAY")));
    // Services come without a key.
    queue.accept(vec![message("a@example.net", &["b@example.test"]).1]).await;
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_caller_with_a_key_has_no_more_than_the_key() {
    let stores = Stores::new().await;
    let (queue, _) = start(&stores, r#"["127.0.0.0/8"]"#).await;
    stats(&queue, None).await.unwrap();
    stats(&queue, Some("queue")).await.unwrap();
    assert_eq!(stats(&queue, Some("bogus")).await.unwrap_err().code(), Code::Unauthenticated);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_goes_with_his_key() {
    let stores = Stores::new().await;
    let (queue, router) = start(&stores, "[]").await;
    let watch = with_key(trace::WatchEventsRequest::default(), Some("trace"));
    let mut events = queue.trace().watch_events(watch).await.unwrap().into_inner();
    router.away.store(true, Ordering::SeqCst);
    queue.accept(vec![message("a@example.net", &["b@example.test"]).1]).await;
    tokio::time::timeout(LIMIT, events.message()).await.unwrap().unwrap().expect("an event, router or not");
    router.revoked.store(true, Ordering::SeqCst);
    router.away.store(false, Ordering::SeqCst);
    let end = loop {
        match tokio::time::timeout(LIMIT, events.message()).await.expect("it ends in time") {
            Ok(event) => assert!(event.is_some(), "it ends with a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&end).as_deref(), Some("API_KEY_REFUSED"));
    queue.stop().await;
}
