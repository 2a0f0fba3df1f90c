//! A relay between a scripted queue, a scripted router and scripted servers.

mod queue;
mod router;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use posthorn_api::mail::v1 as wire;
use posthorn_api::work::v1::{Item, ItemRecipient, RemoteTarget};
use posthorn_mail::{MessageId, Outcome, Verdict};
use posthorn_remote_relay::Config;
use posthorn_service::Process;
use posthorn_service::config::Sources;
use posthorn_testkit::smtp_server::{Script, SmtpServer};
use posthorn_testkit::wait;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

pub(crate) use queue::Queue;
pub(crate) use router::Router;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The relay under test and what surrounds it.
pub(crate) struct World {
    pub(crate) queue: Queue,
    pub(crate) router: Router,
    pub(crate) shutdown: CancellationToken,
    relay: JoinHandle<Result<(), posthorn_service::Error>>,
}

impl World {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let (queue, router) = (Queue::default(), Router::default());
        let [queue_at, router_at] = [listener().await, listener().await];
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let own = [
            ("relay.queue", url(&queue_at)),
            ("relay.router", url(&router_at)),
            ("relay.hostname", "relay.test".to_owned()),
            ("relay.allow_private_destinations", "true".to_owned()),
            ("relay.listen.grpc", "127.0.0.1:0".to_owned()),
            ("relay.listen.http", "127.0.0.1:0".to_owned()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let given = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let command_line = own.into_iter().chain(given).collect();
        let config = Config::load(&Sources { command_line, ..Sources::default() }).unwrap();
        tokio::spawn(queue.clone().serve(TcpListenerStream::new(queue_at)));
        tokio::spawn(router.clone().serve(TcpListenerStream::new(router_at)));
        let shutdown = CancellationToken::new();
        let relay = tokio::spawn(posthorn_remote_relay::run(config, Process::new(shutdown.clone(), None)));
        Self { queue, router, shutdown, relay }
    }

    /// Tells the relay to stop and waits until it has.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.relay).await.expect("it stops in time").unwrap().unwrap();
    }

    /// The outcomes of a message, as text.
    pub(crate) async fn outcomes(&self, id: MessageId) -> Vec<String> {
        let found = wait::until("outcomes", PATIENCE, async || self.queue.outcomes(id)).await;
        found.iter().map(show).collect()
    }

    pub(crate) async fn verdicts(&self, id: MessageId) -> Vec<Outcome> {
        wait::until("outcomes", PATIENCE, async || self.queue.outcomes(id)).await
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A server on an address of its own.
pub(crate) async fn server(script: Script) -> SmtpServer {
    SmtpServer::start("127.0.0.1:0".parse::<SocketAddr>().unwrap(), script).await.unwrap()
}

/// A world with one server that is the only host of example.org.
pub(crate) async fn one(script: Script, settings: &[(&str, &str)]) -> (World, SmtpServer) {
    let (world, server) = (World::start(settings).await, server(script).await);
    world.router.hosts("example.org", &[("mx1.test", server.address())]);
    (world, server)
}

/// `delivered 250 2.0.0 taken at mx1.test`
fn show(outcome: &Outcome) -> String {
    let (word, status) = match &outcome.verdict {
        Verdict::Delivered { status, dsn_passed_on: true } => ("delivered+dsn", status.to_string()),
        Verdict::Delivered { status, .. } => ("delivered", status.to_string()),
        Verdict::Deferred { status, destination_unavailable: true } => ("unavailable", status.to_string()),
        Verdict::Deferred { status, .. } => ("deferred", status.to_string()),
        Verdict::Failed(status) => ("failed", status.to_string()),
        Verdict::Uncertain(status) => ("uncertain", status.to_string()),
        Verdict::Reroute(reason) => ("reroute", reason.clone()),
    };
    let remote = outcome.remote.as_ref().map(|remote| format!(" at {}", remote.host)).unwrap_or_default();
    format!("{word} {status}{remote}")
}

/// A message from `a@example.net` to these.
pub(crate) fn item(recipients: &[&str], content: &[u8]) -> (MessageId, Item) {
    let id = MessageId::generate();
    let recipient = |(at, address): (usize, &&str)| ItemRecipient {
        recipient_no: at as u32,
        address: (*address).to_owned(),
        remote: Some(RemoteTarget {
            destination: "the destination".to_owned(),
            domain: address.rsplit('@').next().unwrap().to_owned(),
        }),
        ..ItemRecipient::default()
    };
    let item = Item {
        message_id: posthorn_api::message_id_bytes(id),
        sender: "a@example.net".to_owned(),
        body: wire::Body::SevenBit.into(),
        size: content.len() as u64,
        content: Some(Bytes::copy_from_slice(content)),
        recipients: recipients.iter().enumerate().map(recipient).collect(),
        ..Item::default()
    };
    (id, item)
}

pub(crate) const MESSAGE: &[u8] = b"Subject: hello\r\n\r\n.a line with a dot\r\nbye\r\n";
