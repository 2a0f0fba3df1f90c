//! A running `posthorn dev`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use posthorn_testkit::wait;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;

use crate::Api;

/// How a `posthorn dev` is started.
#[derive(Debug, Default)]
pub struct Options {
    /// `--set`, each `key=value`.
    pub set: Vec<String>,
    /// `--processes`: each service a process of its own.
    pub processes: bool,
}

impl Options {
    /// Adds a setting.
    pub fn set(mut self, setting: impl Into<String>) -> Self {
        self.set.push(setting.into());
        self
    }
}

/// A running `posthorn dev` with a directory and ports of its own; stops when dropped.
#[derive(Debug)]
pub struct Posthorn {
    options: Options,
    data: TempDir,
    offset: u16,
    child: Child,
    /// What it has printed since its last start.
    printed: Printed,
    api: Api,
    _turn: SemaphorePermit<'static>,
}

/// How many may run at once: more only take each other's time on a small machine.
static TURNS: Semaphore = Semaphore::const_new(2);

/// It must be ready in this time, on a machine that compiles beside the tests.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// And stop in this.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

impl Posthorn {
    /// Starts one with no settings of its own.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one and waits until it says that it is ready.
    pub async fn start_with(options: Options) -> Result<Self> {
        let turn = TURNS.acquire().await?;
        let mut data = tempfile::Builder::new().prefix("posthorn-e2e-").tempdir()?;
        data.disable_cleanup(std::env::var_os("POSTHORN_E2E_KEEP").is_some());
        let offset = free_offset()?;
        let (child, printed) = launch(&options, &data, offset).await?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port + offset));
        let [ingress, queue, local_delivery] = [7001, 7002, 7004].map(|port| format!("http://{}", at(port)));
        let api = Api { smtp: at(2525), ingress, queue, local_delivery };
        Ok(Self { options, data, offset, child, printed, api, _turn: turn })
    }

    /// Stops it with SIGTERM and starts it again on the same data.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// The same with further settings.
    pub async fn restart_with(&mut self, set: &[&str]) -> Result<()> {
        self.options.set.extend(set.iter().map(|setting| (*setting).to_owned()));
        self.restart().await
    }

    /// Starts it on the same data once it was stopped.
    pub async fn start_again(&mut self) -> Result<()> {
        (self.child, self.printed) = launch(&self.options, &self.data, self.offset).await?;
        Ok(())
    }

    /// SIGTERM; fails unless it ends with 0 in time.
    pub async fn stop(&mut self) -> Result<()> {
        signal(self.child.id().context("it has ended already")?, Signal::TERM)?;
        let status = timeout(STOP_DEADLINE, self.child.wait()).await.context("it does not stop")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    /// The process id of a service's last start, with [`Options::processes`].
    pub fn pid_of(&self, service: &str) -> Option<u32> {
        let prefix = format!("{service} pid ");
        self.printed.borrow().iter().rev().find_map(|line| line.strip_prefix(&prefix)?.parse().ok())
    }

    /// Kills a service's process with SIGKILL, and waits until it was started again; the new process id.
    pub async fn crash(&self, service: &str) -> Result<u32> {
        let old = self.pid_of(service).with_context(|| format!("no process of {service}"))?;
        signal(old, Signal::KILL)?;
        let what = format!("{service} to be started again");
        Ok(wait::until(&what, START_DEADLINE, async || self.pid_of(service).filter(|new| *new != old)).await)
    }

    /// Whether the service that the design's table gives this gRPC port says that it misses nothing.
    pub async fn is_ready(&self, port: u16) -> bool {
        let answer = timeout(Duration::from_secs(2), get(self.address(port + 1000), "/readyz")).await;
        matches!(answer, Ok(Ok(answer)) if answer.ends_with("\r\n\r\nready\n"))
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.data.path().join("posthorn.log"))?)
    }

    /// Where servers hand messages in.
    pub fn smtp(&self) -> SocketAddr {
        self.address(2525)
    }

    /// Where clients hand messages in.
    pub fn submission(&self) -> SocketAddr {
        self.address(2587)
    }

    /// The address of a port of the design's table in this instance.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port + self.offset))
    }

    /// The gRPC address of the service that the design's table gives this port.
    pub fn url(&self, port: u16) -> String {
        format!("http://{}", self.address(port))
    }

    /// The directory with the stores and logs.
    pub fn data(&self) -> PathBuf {
        self.data.path().to_owned()
    }

    /// Runs `posthorn ctl` and gives what it prints; fails when it does.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(binary()?)
            .args(["ctl", "--port-offset", &self.offset.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctl {arguments:?}: {}: {errors}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `posthorn ctl --json` and gives the objects it prints, one a line.
    pub async fn ctl_json(&self, arguments: &[&str]) -> Result<Vec<serde_json::Value>> {
        let text = self.ctl(&[&["--json"], arguments].concat()).await?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

impl std::ops::Deref for Posthorn {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Drop for Posthorn {
    /// In order, so that it takes its stores with it; what does not stop is killed (and its stores end all the same).
    fn drop(&mut self) {
        let Some(pid) = self.child.id() else { return };
        if signal(pid, Signal::TERM).is_err() {
            return;
        }
        let deadline = std::time::Instant::now() + STOP_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if std::time::Instant::now() > deadline {
                let _ = self.child.start_kill();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no such process id")?;
    kill_process(pid, signal).context("sending a signal")
}

/// A GET of HTTP/1.1; the whole answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

type Printed = watch::Receiver<Vec<String>>;

async fn launch(options: &Options, data: &TempDir, offset: u16) -> Result<(Child, Printed)> {
    let log = std::fs::File::options().create(true).append(true).open(data.path().join("posthorn.log"))?;
    let mut command = Command::new(binary()?);
    command.args(["dev", "--data"]).arg(data.path()).args(["--port-offset", &offset.to_string()]);
    if options.processes {
        command.arg("--processes");
    }
    for setting in &options.set {
        command.args(["--set", setting]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
    let stdout = child.stdout.take().context("its output")?;
    let mut printed = follow(stdout);
    let ready = printed.wait_for(|lines| lines.iter().any(|line| line.starts_with("posthorn is ready")));
    let failure = match timeout(START_DEADLINE, ready).await {
        Ok(Ok(_)) => None,
        Ok(Err(_)) => Some("it ended".to_owned()),
        Err(_) => Some(format!("nothing in {START_DEADLINE:?}")),
    };
    let Some(failure) = failure else { return Ok((child, printed)) };
    let _ = child.start_kill();
    let log = std::fs::read_to_string(data.path().join("posthorn.log")).unwrap_or_default();
    bail!("posthorn dev did not get ready: {failure}; it printed {:?}\n{log}", *printed.borrow())
}

/// Reads what it prints as it comes, so that it never blocks; the sender goes when it ends.
fn follow(stdout: ChildStdout) -> Printed {
    let (sender, receiver) = watch::channel(Vec::new());
    let mut lines = BufReader::new(stdout).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            sender.send_modify(|printed: &mut Vec<String>| printed.push(line));
        }
    });
    receiver
}

/// The binary beside the test's own: `target/debug/posthorn` for `target/debug/deps/test-…`.
pub(crate) fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let built = test.ancestors().nth(2).context("the test lies in no target directory")?.join("posthorn");
    ensure!(built.exists(), "{} is missing: cargo build --bin posthorn", built.display());
    Ok(built)
}

/// An offset at which all ports are free. Test binaries run one after another, but the threads of one at once.
fn free_offset() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: [u16; 14] =
        [2525, 2587, 2465, 7001, 7002, 7003, 7004, 7005, 8001, 8002, 8003, 8004, 8005, 15432];
    // Steps of 20 keep the blocks of neighbours apart; 16379 + 30,000 stays a port, below the ephemeral ones' middle.
    let first = u16::try_from(std::process::id() % 700)? * 20;
    for _ in 0..700 {
        let offset = 2000 + (first + NEXT.fetch_add(20, Ordering::Relaxed)) % 14_000;
        let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok();
        if PORTS.iter().chain(&[16379]).all(free) {
            return Ok(offset);
        }
    }
    bail!("no offset has all its ports free")
}
