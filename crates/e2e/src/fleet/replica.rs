//! One process of a service.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use posthorn_testkit::wait;
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::posthorn::{binary, get, signal};

/// The five.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the services")]
pub enum Service {
    Queue,
    Router,
    LocalDelivery,
    RemoteRelay,
    Ingress,
}

impl Service {
    /// In the order in which they are started.
    pub const ALL: [Self; 5] =
        [Self::Queue, Self::Router, Self::LocalDelivery, Self::RemoteRelay, Self::Ingress];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Router => "router",
            Self::LocalDelivery => "local-delivery",
            Self::RemoteRelay => "remote-relay",
            Self::Ingress => "ingress",
        }
    }

    /// `queue-0`.
    pub(super) fn replica(self, number: usize) -> String {
        format!("{}-{number}", self.name())
    }

    /// What its settings begin with.
    pub(super) fn section(self) -> &'static str {
        match self {
            Self::LocalDelivery => "local_delivery",
            Self::RemoteRelay => "relay",
            Self::Queue | Self::Router | Self::Ingress => self.name(),
        }
    }

    /// The last part of a replica's address.
    pub(super) fn host(self, number: usize) -> u8 {
        10 + 10 * self as u8 + number as u8
    }

    /// Its port for health, by the design's table.
    fn http(self) -> u16 {
        match self {
            Self::Ingress => 8001,
            Self::Queue => 8002,
            Self::Router => 8003,
            Self::LocalDelivery => 8004,
            Self::RemoteRelay => 8005,
        }
    }
}

/// A replica, running or not; killed when dropped.
#[derive(Debug)]
pub struct Replica {
    /// Which service.
    pub service: Service,
    /// From 0 up.
    pub number: usize,
    /// Settings for its next start, `name=value`, beside those of its file.
    pub set: Vec<String>,
    /// The environment of its next start.
    pub environment: Vec<(String, String)>,
    address: IpAddr,
    config: PathBuf,
    child: Option<Child>,
}

/// It must stop in this time.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

impl Replica {
    pub(super) fn new(
        service: Service,
        number: usize,
        address: IpAddr,
        config: PathBuf,
        set: Vec<String>,
    ) -> Self {
        Self { service, number, set, environment: Vec::new(), address, config, child: None }
    }

    /// Starts it.
    pub fn start(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(binary()?);
        command.arg(self.service.name()).arg("--until-stdin-closes").arg("--config").arg(&self.config);
        for setting in &self.set {
            command.args(["--set", setting]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {self}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// What it writes.
    pub fn log(&self) -> PathBuf {
        self.config.with_extension("log")
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, which: Signal) -> Result<()> {
        signal(self.pid().with_context(|| format!("{self} does not run"))?, which)
    }

    /// SIGKILL; returns when it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{self} does not run"))?;
        child.kill().await.with_context(|| format!("killing {self}"))
    }

    /// SIGTERM; fails unless it ends with 0 in time.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let mut child = self.child.take().with_context(|| format!("{self} does not run"))?;
        let status =
            timeout(STOP_DEADLINE, child.wait()).await.with_context(|| format!("{self} goes on"))??;
        ensure!(status.success(), "{self} ended with {status}");
        Ok(())
    }

    /// All that it counts.
    pub async fn metrics(&self) -> Result<String> {
        let address = SocketAddr::new(self.address, self.service.http());
        timeout(Duration::from_secs(2), get(address, "/metrics")).await?
    }

    /// What it has counted under a name since its start, all labels together.
    pub async fn counted(&self, name: &str) -> Result<u64> {
        let metrics = self.metrics().await?;
        let of_name = metrics.lines().filter_map(|line| line.strip_prefix(name));
        let values =
            of_name.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit(' ').next());
        Ok(values.filter_map(|value| value.parse::<u64>().ok()).sum())
    }

    /// Waits until it says that it misses nothing.
    pub async fn ready(&self, limit: Duration) {
        let address = SocketAddr::new(self.address, self.service.http());
        wait::until(&format!("{self} to be ready"), limit, async || {
            let answer = timeout(Duration::from_secs(2), get(address, "/readyz")).await;
            matches!(answer, Ok(Ok(answer)) if answer.ends_with("\r\n\r\nready\n")).then_some(())
        })
        .await;
    }
}

impl std::fmt::Display for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.service.replica(self.number))
    }
}
