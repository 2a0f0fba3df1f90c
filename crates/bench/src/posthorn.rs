//! A Posthorn to be measured: `posthorn dev --processes` on stores of its own, with fsync.

mod calls;
mod fill;
mod replica;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::valve::Valve;

/// A running `posthorn dev`; stops when dropped.
#[derive(Debug)]
pub(crate) struct Posthorn {
    binary: PathBuf,
    settings: Vec<String>,
    child: Child,
    offset: u16,
    data: TempDir,
    directory: Channel,
    mailboxes: Channel,
    queue: Channel,
    valve: Option<Valve>,
}

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(60);

impl Posthorn {
    /// Starts one in a directory of its own below `dir`, with these settings (`key=value`); with a valve between the
    /// queue and those who work for it here if it is to be held.
    pub(crate) async fn start(
        binary: &Path,
        dir: &Path,
        mut settings: Vec<String>,
        with_valve: bool,
    ) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("posthorn-").tempdir_in(dir)?;
        let offset = free_offset()?;
        let valve = if with_valve {
            let valve = Valve::open((Ipv4Addr::LOCALHOST, 7002 + offset).into()).await?;
            let queue = format!("http://{}", valve.address());
            settings.extend(["router", "local_delivery"].map(|worker| format!("{worker}.queue=\"{queue}\"")));
            Some(valve)
        } else {
            None
        };
        let child = launch(binary, &data, offset, &settings).await?;
        let channel = |port: u16| -> Result<Channel> {
            Ok(Endpoint::from_shared(format!("http://127.0.0.1:{}", port + offset))?.connect_lazy())
        };
        let (directory, mailboxes, queue) = (channel(7003)?, channel(7004)?, channel(7002)?);
        let binary = binary.to_owned();
        Ok(Self { binary, settings, child, offset, data, directory, mailboxes, queue, valve })
    }

    /// Lets nothing that is accepted from now on move.
    pub(crate) fn hold(&self) {
        self.valve.iter().for_each(Valve::shut);
    }

    /// Where messages are handed in by SMTP.
    pub(crate) fn smtp(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port(2525)).into()
    }

    /// Where they are handed in by gRPC.
    pub(crate) fn submission(&self) -> String {
        format!("http://127.0.0.1:{}", self.port(7001))
    }

    /// The process that all others descend from.
    pub(crate) fn root(&self) -> u32 {
        // It is waited for only by `drop`.
        self.child.id().unwrap_or_default()
    }

    /// A port of the design's table in this instance.
    pub(crate) fn port(&self, port: u16) -> u16 {
        port + self.offset
    }
}

impl Drop for Posthorn {
    /// In order, so that it takes its stores with it.
    fn drop(&mut self) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if pid.is_none_or(|pid| kill_process(pid, Signal::TERM).is_err()) {
            return;
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.start_kill();
    }
}

async fn launch(binary: &Path, data: &TempDir, offset: u16, settings: &[String]) -> Result<Child> {
    let log_file = data.path().join("posthorn.log");
    let mut command = Command::new(binary);
    command.args(["dev", "--processes", "--port-offset", &offset.to_string(), "--data"]).arg(data.path());
    for setting in settings {
        command.args(["--set", setting]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log_file)?)
        .spawn()
        .with_context(|| format!("starting {} (`make build` makes it)", binary.display()))?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("posthorn is ready") {
                return anyhow::Ok(true);
            }
        }
        Ok(false)
    };
    if !matches!(timeout(START_DEADLINE, ready).await, Ok(Ok(true))) {
        let _ = child.start_kill();
        bail!("posthorn dev did not get ready:\n{}", std::fs::read_to_string(log_file).unwrap_or_default());
    }
    // Read on, so that it never blocks.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(child)
}

/// An offset at which all ports are free.
fn free_offset() -> Result<u16> {
    const PORTS: [u16; 14] =
        [2525, 2587, 7001, 7002, 7003, 7004, 7005, 8001, 8002, 8003, 8004, 8005, 15432, 16379];
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let first = u16::try_from(std::process::id() % 500)?;
    (0..500u16)
        .map(|step| 2000 + (first + step) % 500 * 20)
        .find(|offset| PORTS.iter().map(|port| port + offset).all(|port| free(&port)))
        .context("no offset has all its ports free")
}
