//! The gRPC server of a service, and beside it its HTTP server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::server::TcpIncoming;
use tonic_reflection::pb as reflection;
use tower::Service;

use crate::{Error, Process, calls, setting, trace};

/// How long the peers have to take leave once no call is under way. One whose host is gone never does.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is served beside the services of a process.
const BESIDE: [&str; 3] = [
    tonic_health::pb::health_server::SERVICE_NAME,
    reflection::v1::server_reflection_server::SERVICE_NAME,
    reflection::v1alpha::server_reflection_server::SERVICE_NAME,
];

/// Where a service listens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port of the gRPC server.
    pub grpc: SocketAddr,
    /// Address and port of `/livez`, `/readyz` and `/metrics`.
    pub http: SocketAddr,
    /// How long calls that are under way may take to end once the service was told to stop.
    #[serde(deserialize_with = "setting::length")]
    pub drain: Duration,
}

/// The gRPC services of one process, to be served together.
#[derive(Debug)]
pub struct Grpc {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
    descriptors: &'static [u8],
}

impl Grpc {
    /// Begins with none; `descriptors` are for reflection (`posthorn_api::DESCRIPTORS`).
    pub fn new(descriptors: &'static [u8]) -> Self {
        Self { routes: RoutesBuilder::default(), names: Vec::new(), descriptors }
    }

    /// Adds a generated `…Server`.
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Binds both ports and serves until told to stop; then lets the calls under way end, for `listen.drain` at most.
    ///
    /// Long streams must watch `process.shutdown` themselves, or they are cut at the end of that time.
    pub async fn serve(self, listen: &Listen, process: &Process) -> Result<(), Error> {
        let grpc = bind(listen.grpc).await?;
        let http = bind(listen.http).await?;
        let incoming = TcpIncoming::from(grpc).with_nodelay(Some(true));
        let calls = TaskTracker::new();
        let routes = self.with_health_and_reflection(process, &calls)?;
        let server = tonic::transport::Server::builder()
            .trace_fn(trace::server_span)
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            // A connection that asks for more waits: what is being decoded is bounded (R11).
            .max_concurrent_streams(Some(1000))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, process.shutdown.clone().cancelled_owned());
        let http_stop = CancellationToken::new();
        let http_server = serve_http(http, process.clone(), http_stop.clone());
        process.ready.serving();
        tracing::info!(grpc = %listen.grpc, http = %listen.http, "listening");
        let late = async {
            process.shutdown.cancelled().await;
            if tokio::time::timeout(listen.drain, ended(&calls)).await.is_err() {
                let open = calls.len();
                tracing::warn!(open, drain = ?listen.drain, "calls were still open at the end of the drain time");
            }
            Ok(())
        };
        let served = async {
            tokio::select! {
                served = server => served.map_err(Error::fatal),
                late = late => late,
            }
        };
        // Health and metrics are answered until the last call has ended.
        let served = async {
            let result = served.await;
            http_stop.cancel();
            result
        };
        let (served, http_served) = tokio::join!(served, http_server);
        served.and(http_served)
    }

    /// Calls to what is added here are not counted: those who watch a service's health do so to its end.
    fn with_health_and_reflection(
        mut self,
        process: &Process,
        calls: &TaskTracker,
    ) -> Result<tonic::service::Routes, Error> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut ready = process.ready.watch();
        let names = std::mem::take(&mut self.names);
        let listed = [names.as_slice(), &BESIDE].concat();
        let shutdown = process.shutdown.clone();
        tokio::spawn(async move {
            loop {
                let serving = *ready.borrow_and_update() && !shutdown.is_cancelled();
                let status = if serving {
                    tonic_health::ServingStatus::Serving
                } else {
                    tonic_health::ServingStatus::NotServing
                };
                for name in names.iter().copied().chain([""]) {
                    reporter.set_service_status(name, status).await;
                }
                tokio::select! {
                    changed = ready.changed() => if changed.is_err() { return },
                    () = shutdown.cancelled(), if serving => {}
                }
            }
        });
        // The descriptors are those of all our services; what is listed can be called here.
        let describing = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(self.descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(reflection::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(reflection::v1alpha::FILE_DESCRIPTOR_SET);
            listed.iter().copied().fold(builder, tonic_reflection::server::Builder::with_service_name)
        };
        // Common clients still ask v1alpha.
        let v1 = describing().build_v1().map_err(Error::fatal)?;
        let v1alpha = describing().build_v1alpha().map_err(Error::fatal)?;
        let ours = calls::count(self.routes.routes().into_axum_router(), calls);
        Ok(tonic::service::Routes::from(ours).add_service(health).add_service(v1).add_service(v1alpha))
    }
}

/// Returns when no call has been under way for long enough to take leave.
async fn ended(calls: &TaskTracker) {
    calls.close();
    loop {
        calls.wait().await;
        tokio::time::sleep(FAREWELL).await;
        if calls.is_empty() {
            return;
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })
}

async fn serve_http(listener: TcpListener, process: Process, stop: CancellationToken) -> Result<(), Error> {
    let router = axum::Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(process);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.map_err(Error::fatal)
}

async fn readyz(State(process): State<Process>) -> (StatusCode, String) {
    if process.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let missing = process.ready.missing();
    let lines: String =
        missing.iter().map(|(name, reason)| format!("waiting for {name}: {reason}\n")).collect();
    if process.ready.is_ready() {
        (StatusCode::OK, format!("ready\n{lines}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, lines)
    }
}

async fn metrics(State(process): State<Process>) -> (StatusCode, String) {
    match process.metrics {
        Some(handle) => (StatusCode::OK, handle.render()),
        None => (StatusCode::NOT_FOUND, String::new()),
    }
}
