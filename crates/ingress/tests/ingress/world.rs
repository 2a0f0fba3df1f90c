//! An ingress with a played router and a played queue around it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_api::routing::v1::routing_service_server::RoutingServiceServer;
use posthorn_api::spool::v1::spool_service_server::SpoolServiceServer;
use posthorn_ingress::Config;
use posthorn_service::config::Sources;
use posthorn_service::{Error, Process};
use posthorn_testkit::smtp_client::{Reply, SmtpClient};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::queue::PlayedQueue;
use crate::router::PlayedRouter;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The whole, on a loopback address of its own.
pub(crate) struct World {
    pub(crate) smtp: SocketAddr,
    pub(crate) submission: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) router: PlayedRouter,
    pub(crate) queue: PlayedQueue,
    pub(crate) process: Process,
    running: JoinHandle<Result<(), Error>>,
}

/// An address of 127.0.0.0/8 that no other test of this process has, nor (most likely) of another.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    let process = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, process[2].wrapping_add(high) | 1, process[3], low)
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With these settings (`limits.errors`, `5`) beside the defaults. Trusted is 127.0.0.0/24: a test that connects
    /// from 127.0.1.1 is a stranger.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let (router, queue) = (PlayedRouter::default(), PlayedQueue::default());
        let router_address =
            serve(Server::builder().add_service(RoutingServiceServer::new(router.clone()))).await;
        let spool = SpoolServiceServer::new(queue.clone()).max_decoding_message_size(64 << 20);
        let queue_address = serve(Server::builder().add_service(spool)).await;
        let own = own_address();
        let at = |port| SocketAddr::new(own.into(), port);
        let (smtp, submission, grpc) = (at(2525), at(2587), at(7001));
        let ours = [
            ("hostname", "mx.example.test".to_owned()),
            ("router", format!("http://{router_address}")),
            ("queue", format!("http://{queue_address}")),
            ("trusted_networks", "['127.0.0.0/24']".to_owned()),
            ("listen.grpc", grpc.to_string()),
            ("listen.http", at(8001).to_string()),
            ("smtp.listen", format!("['{smtp}']")),
            ("submission.listen", format!("['{submission}']")),
        ];
        let theirs = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let command_line =
            ours.into_iter().chain(theirs).map(|(name, value)| (format!("ingress.{name}"), value)).collect();
        let config = Config::load(&Sources { command_line, ..Sources::default() }).unwrap();
        let process = Process::new(CancellationToken::new(), None);
        let running = tokio::spawn(posthorn_ingress::run(config, process.clone()));
        let mut ready = process.ready.watch();
        tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
        router.confirmed().await;
        Self { smtp, submission, grpc, router, queue, process, running }
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(self) {
        self.process.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap().unwrap();
    }

    /// A client that has said EHLO.
    pub(crate) async fn client(&self) -> SmtpClient {
        greeted(SmtpClient::connect(self.smtp).await.unwrap()).await
    }

    /// A client for whom nothing is relayed.
    pub(crate) async fn stranger(&self) -> SmtpClient {
        greeted(SmtpClient::connect_from(Ipv4Addr::new(127, 0, 1, 1).into(), self.smtp).await.unwrap()).await
    }

    /// One message from bob to alice by SMTP; the reply to its final dot.
    pub(crate) async fn send(&self, content: &[u8]) -> Result<Reply> {
        let mut client = self.client().await;
        client.expect("MAIL FROM:<bob@example.net>", 250).await?;
        client.expect("RCPT TO:<alice@example.test>", 250).await?;
        client.data(content).await
    }
}

async fn greeted((mut client, greeting): (SmtpClient, Reply)) -> SmtpClient {
    assert_eq!(greeting.code, 220, "{greeting:?}");
    client.expect("EHLO client.example", 250).await.unwrap();
    client
}

async fn serve(router: tonic::transport::server::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// Fails unless the reply begins so.
pub(crate) fn check(reply: &Reply, code: u16, text: &str) -> Result<()> {
    ensure!(reply.code == code && reply.text.starts_with(text), "wanted {code} {text}, got {reply:?}");
    Ok(())
}
