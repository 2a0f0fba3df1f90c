//! All services as processes, two of each, with a proxy that can be broken between each two parties.

mod link;
mod replica;
mod settings;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use posthorn_stores::{Durability, Postgres, Redis, free_port};
use posthorn_testkit::proxy::Proxy;
use posthorn_testkit::wait;
use tempfile::TempDir;
use tokio::process::Command;

pub use link::Link;
pub use replica::{Replica, Service};

use crate::posthorn::binary;
use crate::{Api, Internet};

/// How many replicas each service has.
pub const REPLICAS: usize = 2;

/// A running system; it stops, and all its processes with it, when dropped.
#[derive(Debug)]
pub struct Fleet {
    /// Ends first: the services hold connections to the stores.
    pub replicas: Vec<Replica>,
    proxies: Vec<(Link, Proxy)>,
    /// `None`: it was killed.
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    postgres_port: u16,
    redis_port: u16,
    api: Api,
    data: TempDir,
}

impl Fleet {
    /// Starts one in an internet. `postgres` is where Postgres keeps its files, if not beside the rest; `set` are
    /// settings, `queue.lease.length=3s`.
    pub async fn start(internet: &Internet, postgres: Option<&Path>, set: &[&str]) -> Result<Self> {
        let mut data = tempfile::Builder::new().prefix("posthorn-chaos-").tempdir()?;
        data.disable_cleanup(std::env::var_os("POSTHORN_E2E_KEEP").is_some());
        let (postgres_port, redis_port) = (free_port()?, free_port()?);
        let postgres_dir = postgres.map_or_else(|| data.path().join("postgres"), Path::to_owned);
        let network = network();
        let at = |host: u8, port: u16| SocketAddr::from((with_last(network, host), port));
        let mut proxies = Vec::new();
        for link in Link::ALL {
            let upstreams = link.upstreams(postgres_port, redis_port, at);
            proxies.push((link, Proxy::start(link.address(at), upstreams).await?));
        }
        let mut replicas = Vec::new();
        for (service, number) in Service::ALL.into_iter().flat_map(|s| (0..REPLICAS).map(move |n| (s, n))) {
            let text = settings::of(service, number, internet, at)?;
            let config = data.path().join(format!("{}.toml", service.replica(number)));
            std::fs::write(&config, text)?;
            let its_own = |setting: &&&str| setting.split('.').next() == Some(service.section());
            let set = set.iter().filter(its_own).map(|setting| (*setting).to_owned()).collect();
            replicas.push(Replica::new(service, number, at(service.host(number), 0).ip(), config, set));
        }
        let api = Api {
            smtp: Link::Clients.address(at),
            ingress: format!("http://{}", Link::Programs.address(at)),
            queue: format!("http://{}", Link::Operators.address(at)),
            local_delivery: format!("http://{}", Link::Readers.address(at)),
        };
        let mut fleet =
            Self { replicas, proxies, postgres: None, redis: None, postgres_port, redis_port, api, data };
        fleet.start_postgres(postgres_dir).await?;
        fleet.start_redis().await?;
        fleet.migrate().await?;
        for replica in &mut fleet.replicas {
            replica.start()?;
        }
        fleet.all_ready(Duration::from_secs(60)).await;
        fleet.fill_directory(at(Service::Router.host(0), 7003)).await?;
        Ok(fleet)
    }

    async fn migrate(&self) -> Result<()> {
        let url = self.database();
        let status = Command::new(binary()?)
            .args(["migrate", "--set", &format!("migrate.database.url={url}")])
            .stdout(Stdio::null())
            .status()
            .await?;
        ensure!(status.success(), "migrate: {status}");
        Ok(())
    }

    /// What [`crate::load`] sends to.
    async fn fill_directory(&self, router: SocketAddr) -> Result<()> {
        let router = format!("http://{router}");
        for arguments in crate::load::DIRECTORY {
            // On a busy machine an answer may come too late, to a call that has done its work.
            wait::until(&format!("ctl {arguments:?}"), Duration::from_secs(60), async || {
                match self.ctl_at(&["--router", &router], arguments).await {
                    Err(reason) if !reason.to_string().contains("AlreadyExists") => None,
                    Ok(_) | Err(_) => Some(()),
                }
            })
            .await;
        }
        crate::load::open_mailboxes(router).await
    }

    /// What all replicas of a service have counted under a name since their start.
    pub async fn counted(&self, service: Service, name: &str) -> Result<u64> {
        let mut sum = 0;
        for replica in self.replicas.iter().filter(|replica| replica.service == service) {
            sum += replica.counted(name).await?;
        }
        Ok(sum)
    }

    /// Waits until every replica that runs says that it is ready.
    pub async fn all_ready(&self, limit: Duration) {
        for replica in &self.replicas {
            replica.ready(limit).await;
        }
    }

    /// Runs `posthorn ctl` against the queue and gives what it prints.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        self.ctl_at(&["--queue", &self.api.queue], arguments).await
    }

    async fn ctl_at(&self, services: &[&str], arguments: &[&str]) -> Result<String> {
        let output = Command::new(binary()?)
            .arg("ctl")
            .args(services)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctl {arguments:?}: {}: {errors}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How its doors are reached, whatever replica answers.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// A replica.
    pub fn replica(&mut self, service: Service, number: usize) -> &mut Replica {
        let found = self.replicas.iter_mut().find(|r| r.service == service && r.number == number);
        found.expect("each service has so many replicas")
    }

    /// The proxy between two parties.
    pub fn proxy(&self, link: Link) -> &Proxy {
        let found = self.proxies.iter().find(|(l, _)| *l == link);
        &found.expect("each link has a proxy").1
    }

    /// The database, as its owner, past all proxies.
    pub fn database(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/posthorn", self.postgres_port)
    }

    /// Redis, past its proxy.
    pub fn redis(&self) -> String {
        format!("redis://127.0.0.1:{}", self.redis_port)
    }

    /// The directory with logs and stores.
    pub fn data(&self) -> PathBuf {
        self.data.path().to_owned()
    }

    /// Starts Postgres where it was, or for the first time in `dir`.
    async fn start_postgres(&mut self, dir: PathBuf) -> Result<()> {
        let port = self.postgres_port;
        let start = move || Postgres::start(&dir, port, Durability::Full);
        self.postgres = Some(tokio::task::spawn_blocking(start).await??);
        Ok(())
    }

    /// Ends Postgres at once ("immediate": the next start recovers from its log), and starts it again.
    pub async fn crash_postgres(&mut self, dir: Option<&Path>) -> Result<()> {
        let dir = dir.map_or_else(|| self.data.path().join("postgres"), Path::to_owned);
        let postgres = self.postgres.take().context("Postgres runs")?;
        tokio::task::spawn_blocking(move || postgres.crash()).await?;
        self.start_postgres(dir).await
    }

    async fn start_redis(&mut self) -> Result<()> {
        let (dir, port) = (self.data.path().join("redis"), self.redis_port);
        self.redis = Some(tokio::task::spawn_blocking(move || Redis::start(&dir, port)).await??);
        Ok(())
    }

    /// Kills Redis and starts it again, with what its file has kept or with nothing.
    pub async fn crash_redis(&mut self, empty: bool) -> Result<()> {
        let redis = self.redis.take().context("Redis runs")?;
        tokio::task::spawn_blocking(move || redis.crash()).await?;
        if empty {
            std::fs::remove_dir_all(self.data.path().join("redis"))?;
        }
        self.start_redis().await
    }

    /// What the log of every replica says, for the parts that a test names.
    pub fn logs_with(&self, part: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for replica in &self.replicas {
            let log = std::fs::read_to_string(replica.log())?;
            found.extend(log.lines().filter(|line| line.contains(part)).map(str::to_owned));
        }
        Ok(found)
    }
}

/// A network of 256 loopback addresses that no other fleet has.
fn network() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let process = std::process::id();
    let second = 64 + u8::try_from(process % 128).unwrap_or_default();
    let third = (process / 128 % 64 * 4) as u8;
    Ipv4Addr::new(127, second, third.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)), 0)
}

fn with_last(network: Ipv4Addr, host: u8) -> Ipv4Addr {
    let [a, b, c, _] = network.octets();
    Ipv4Addr::new(a, b, c, host)
}
