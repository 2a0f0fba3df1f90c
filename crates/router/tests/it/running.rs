//! A running router.

use std::net::SocketAddr;
use std::time::Duration;

use posthorn_api::directory::v1 as wire;
use posthorn_api::directory::v1::directory_service_client::DirectoryServiceClient;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_router::Config;
use posthorn_service::config::Sources;
use posthorn_service::{Channel, Error, Process, connect};
use posthorn_testkit::{dns::Dns, stores, wait};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Router {
    pub(crate) directory: DirectoryServiceClient<Channel>,
    pub(crate) routing: RoutingServiceClient<Channel>,
    pub(crate) process: Process,
    running: JoinHandle<Result<(), Error>>,
}

/// A database with the schema, as its owner's URL.
pub(crate) async fn database() -> String {
    let url = stores::database().await;
    posthorn_router::migrate(&url).await.unwrap();
    url
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Router {
    /// A router on this database, with `settings` beside the defaults; it may be without a queue.
    pub(crate) async fn start(database: &str, settings: &[(&str, &str)]) -> Self {
        let url = stores::as_role(database, "posthorn_router").await;
        let listen = free_address();
        let own = [
            ("router.listen.grpc", format!("\"{listen}\"")),
            ("router.listen.http", format!("\"{}\"", free_address())),
            ("router.database.url", format!("\"{url}\"")),
            ("router.queue", format!("\"http://{}\"", free_address())),
        ];
        let given = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let command_line = own.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value));
        let sources = Sources { command_line: command_line.collect(), ..Sources::default() };
        let config = Config::load(&sources).unwrap();
        let process = Process::new(CancellationToken::new(), None);
        let running = tokio::spawn(posthorn_router::run(config, process.clone()));
        let channel = connect(&format!("http://{listen}")).unwrap();
        let router = Self {
            directory: DirectoryServiceClient::new(channel.clone()),
            routing: RoutingServiceClient::new(channel),
            process,
            running,
        };
        wait::until("the router's Postgres", LIMIT, async || {
            let missing = router.process.ready.missing();
            missing.iter().all(|(name, _)| *name == "queue").then_some(())
        })
        .await;
        router
    }

    /// A router with the domain example.test, alice and bob, asking this DNS.
    pub(crate) async fn with_users(dns: &Dns, settings: &[(&str, &str)]) -> Self {
        let servers = format!("[\"{}\"]", dns.address());
        let settings: Vec<(&str, &str)> =
            settings.iter().copied().chain([("router.dns.servers", servers.as_str())]).collect();
        let mut router = Self::start(&database().await, &settings).await;
        router.domain("example.test").await;
        router.account("alice@example.test").await;
        router.account("bob@example.test").await;
        router
    }

    pub(crate) async fn domain(&mut self, name: &str) {
        let domain = wire::Domain { name: name.into(), ..Default::default() };
        self.directory.create_domain(wire::CreateDomainRequest { domain: Some(domain) }).await.unwrap();
    }

    pub(crate) async fn account(&mut self, address: &str) -> wire::Account {
        let account = wire::Account { address: address.into(), ..Default::default() };
        let request = wire::CreateAccountRequest { account: Some(account), password: String::new() };
        self.directory.create_account(request).await.unwrap().into_inner().account.unwrap()
    }

    pub(crate) async fn alias(&mut self, address: &str, targets: &[&str]) {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        let alias = Some(wire::Alias { address: address.into(), targets });
        self.directory.create_alias(wire::CreateAliasRequest { alias }).await.unwrap();
    }

    pub(crate) async fn route(&mut self, domain: &str, hosts: &[(&str, u32)]) {
        let hosts = hosts.iter().map(|(host, port)| wire::RouteHost { host: (*host).into(), port: *port });
        let route = Some(wire::Route { domain: domain.into(), hosts: hosts.collect() });
        self.directory.create_route(wire::CreateRouteRequest { route }).await.unwrap();
    }

    /// Stops it as SIGTERM does, and waits for its end.
    pub(crate) async fn stop(self) {
        self.process.shutdown.cancel();
        tokio::time::timeout(LIMIT, self.running).await.expect("it stops in time").unwrap().unwrap();
    }
}
