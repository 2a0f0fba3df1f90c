//! A service that is told to stop waits for the calls that are under way, and for nothing else.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use posthorn_service::{Error, Grpc, Listen, Process};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Far more than a test may take.
const DRAIN: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);

/// Any service will do: a call begins, and ends when the test says so.
struct Slow {
    begun: &'static Semaphore,
    end: &'static Semaphore,
}

#[tonic::async_trait]
impl TraceService for Slow {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.begun.add_permits(1);
        let _end = self.end.acquire().await.map_err(|_| Status::cancelled("the test has ended"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

struct Server {
    address: SocketAddr,
    process: Process,
    served: JoinHandle<Result<(), Error>>,
    begun: &'static Semaphore,
    end: &'static Semaphore,
}

impl Server {
    async fn start() -> Self {
        let (grpc, http) = (free_port().await, free_port().await);
        let process = Process::new(CancellationToken::new(), None);
        let [begun, end] = [(); 2].map(|()| &*Box::leak(Box::new(Semaphore::new(0))));
        let served = tokio::spawn({
            let process = process.clone();
            async move {
                let listen = Listen { grpc, http, drain: DRAIN };
                let service = TraceServiceServer::new(Slow { begun, end });
                Grpc::new(&[]).with(service).serve(&listen, &process).await
            }
        });
        process.ready.watch().wait_for(|ready| *ready).await.unwrap();
        Self { address: grpc, process, served, begun, end }
    }

    async fn client(&self) -> TraceServiceClient<tonic::transport::Channel> {
        TraceServiceClient::connect(format!("http://{}", self.address)).await.unwrap()
    }

    /// It is told to stop; how long it takes.
    async fn stop(self) -> Duration {
        let began = Instant::now();
        self.process.shutdown.cancel();
        tokio::time::timeout(SOON, self.served).await.expect("it stops soon").unwrap().unwrap();
        began.elapsed()
    }
}

async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_call_under_way_is_finished() {
    let server = Server::start().await;
    let (begun, end) = (server.begun, server.end);
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.export(ExportTraceServiceRequest::default()).await });
    begun.acquire().await.unwrap().forget();
    let stopping = server.process.shutdown.clone();
    let stopped = tokio::spawn(server.stop());
    stopping.cancelled().await;
    // Longer than it would wait for one who does not answer.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!stopped.is_finished());
    end.add_permits(1);
    call.await.unwrap().unwrap();
    stopped.await.unwrap();
}

/// One whose host is gone, or whose process was stopped: it will never take leave.
#[tokio::test]
async fn a_peer_that_does_not_answer_is_not_waited_for() {
    let server = Server::start().await;
    let mut says_nothing = TcpStream::connect(server.address).await.unwrap();
    let mut says_no_more = TcpStream::connect(server.address).await.unwrap();
    // The client's preface and empty settings (RFC 9113 §3.4): a connection that is open, and idle.
    says_no_more.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    says_nothing.flush().await.unwrap();
    says_no_more.readable().await.unwrap();
    server.stop().await;
}

/// Such as programs that balance their calls by it: it ends when the service does.
#[tokio::test]
async fn who_watches_its_health_is_not_waited_for() {
    let server = Server::start().await;
    let channel = tonic::transport::Channel::builder(format!("http://{}", server.address).parse().unwrap());
    let channel = channel.connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let mut watched =
        health.watch(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watched.message().await.unwrap().is_some());
    server.stop().await;
}
