//! With `telemetry.otlp_endpoint` set, spans reach a collector, and carry on the caller's trace.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use posthorn_service::config::{Sources, load};
use posthorn_service::telemetry;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::cancelled("the test has ended"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_spans() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut exported) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let command_line = vec![("telemetry.otlp_endpoint".to_owned(), endpoint)];
    let sources = Sources { command_line, ..Sources::default() };
    let config = load("telemetry", telemetry::DEFAULTS, &sources).unwrap();
    let telemetry = telemetry::init(&config, "test").unwrap();

    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    {
        let span = tracing::info_span!("attempt");
        posthorn_service::trace::link(&span, traceparent);
        span.in_scope(|| assert!(!posthorn_service::trace::current_traceparent().is_empty()));
    }
    // Shutting down sends what is left, and must not hold up the runtime that answers.
    tokio::task::spawn_blocking(move || drop(telemetry)).await.unwrap();

    let request = tokio::time::timeout(Duration::from_secs(10), exported.recv()).await.unwrap().unwrap();
    let resource = &request.resource_spans[0];
    let span = &resource.scope_spans[0].spans[0];
    assert_eq!(span.name, "attempt");
    assert_eq!(span.links[0].trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    assert!(attributes.iter().any(|a| a.key == "service.name"), "{attributes:?}");
}
