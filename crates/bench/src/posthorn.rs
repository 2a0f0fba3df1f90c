//! A Posthorn to be measured: `posthorn dev --processes` on stores of its own, with fsync.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use posthorn_api::directory::v1::directory_service_client::DirectoryServiceClient;
use posthorn_api::directory::v1::{Account, CreateAccountRequest, CreateRouteRequest, Route, RouteHost};
use posthorn_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use posthorn_api::mailbox::v1::watch_response::Change;
use posthorn_api::mailbox::v1::{ListFoldersRequest, WatchRequest};
use posthorn_api::queue::v1::queue_service_client::QueueServiceClient;
use posthorn_api::queue::v1::{BounceRequest, Filter, StatsRequest, StatsResponse, Target, target};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::letter::{SENDER, number_of};
use crate::valve::Valve;

/// A running `posthorn dev`; stops when dropped.
#[derive(Debug)]
pub(crate) struct Posthorn {
    child: Child,
    offset: u16,
    _data: TempDir,
    directory: Channel,
    mailboxes: Channel,
    queue: Channel,
    valve: Option<Valve>,
}

/// An arrival in a mailbox: the message's number, and when it was seen.
pub(crate) type Arrival = (u64, Instant);

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(60);

impl Posthorn {
    /// Starts one in a directory of its own below `dir`; with a valve between router and queue if it is to be held.
    pub(crate) async fn start(binary: &Path, dir: &Path, with_valve: bool) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("posthorn-").tempdir_in(dir)?;
        let offset = free_offset()?;
        let mut settings = Vec::new();
        let valve = if with_valve {
            let valve = Valve::open((Ipv4Addr::LOCALHOST, 7002 + offset).into()).await?;
            settings.push(format!("router.queue=\"http://{}\"", valve.address()));
            Some(valve)
        } else {
            None
        };
        let child = launch(binary, &data, offset, &settings).await?;
        let channel = |port: u16| -> Result<Channel> {
            Ok(Endpoint::from_shared(format!("http://127.0.0.1:{}", port + offset))?.connect_lazy())
        };
        let (directory, mailboxes, queue) = (channel(7003)?, channel(7004)?, channel(7002)?);
        Ok(Self { child, offset, _data: data, directory, mailboxes, queue, valve })
    }

    /// Lets nothing that is accepted from now on move.
    pub(crate) fn hold(&self) {
        self.valve.iter().for_each(Valve::shut);
    }

    /// Where messages are handed in by SMTP.
    pub(crate) fn smtp(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 2525 + self.offset).into()
    }

    /// Where they are handed in by gRPC.
    pub(crate) fn submission(&self) -> String {
        format!("http://127.0.0.1:{}", 7001 + self.offset)
    }

    /// The process that all others descend from.
    pub(crate) fn root(&self) -> u32 {
        // It is waited for only by `drop`.
        self.child.id().unwrap_or_default()
    }

    /// Makes these accounts.
    pub(crate) async fn create_accounts(&self, addresses: &[String]) -> Result<()> {
        let create = |address: &String| {
            let mut directory = DirectoryServiceClient::new(self.directory.clone());
            let account = Account { address: address.clone(), ..Default::default() };
            async move {
                let request = CreateAccountRequest { account: Some(account), password: String::new() };
                directory.create_account(request).await
            }
        };
        stream::iter(addresses.iter().map(create)).buffer_unordered(16).try_collect::<Vec<_>>().await?;
        Ok(())
    }

    /// Sends a domain's mail to one server.
    pub(crate) async fn create_route(&self, domain: &str, to: SocketAddr) -> Result<()> {
        let host = RouteHost { host: to.ip().to_string(), port: to.port().into() };
        let route = Route { domain: domain.to_owned(), hosts: vec![host] };
        let mut directory = DirectoryServiceClient::new(self.directory.clone());
        directory.create_route(CreateRouteRequest { route: Some(route) }).await?;
        Ok(())
    }

    /// How many messages the INBOX of each of these mailboxes holds, together.
    pub(crate) async fn delivered(&self, mailboxes: &[String]) -> Result<u64> {
        let counts = mailboxes.iter().map(|mailbox| {
            let mut client = MailboxServiceClient::new(self.mailboxes.clone());
            async move {
                let request = ListFoldersRequest { mailbox: mailbox.clone() };
                let folders = client.list_folders(request).await?.into_inner().folders;
                let inbox = folders.iter().find(|folder| folder.name == "INBOX");
                anyhow::Ok(inbox.map_or(0, |folder| u64::from(folder.messages)))
            }
        });
        let counts: Vec<u64> = stream::iter(counts).buffer_unordered(16).try_collect().await?;
        Ok(counts.iter().sum())
    }

    /// Messages of which something is still owed.
    pub(crate) async fn owed(&self) -> Result<u64> {
        Ok(self.stats().await?.messages)
    }

    /// What waits, in numbers.
    pub(crate) async fn stats(&self) -> Result<StatsResponse> {
        let mut queue = QueueServiceClient::new(self.queue.clone());
        Ok(queue.stats(StatsRequest::default()).await?.into_inner())
    }

    /// Throws away what waits, telling nobody.
    pub(crate) async fn discard(&self) -> Result<()> {
        let filter = Filter { sender: SENDER.to_owned(), ..Default::default() };
        let target = Some(Target { target: Some(target::Target::Filter(filter)) });
        let request = BounceRequest { target, silent: true, reason: "measured".to_owned() };
        QueueServiceClient::new(self.queue.clone()).bounce(request).await?;
        Ok(())
    }

    /// The arrivals in a mailbox from now on.
    pub(crate) async fn watch(&self, mailbox: &str) -> Result<mpsc::UnboundedReceiver<Arrival>> {
        let request = WatchRequest { mailbox: mailbox.to_owned(), ..Default::default() };
        let mut client = MailboxServiceClient::new(self.mailboxes.clone());
        let mut changes = client.watch(request).await?.into_inner();
        let started = changes.message().await?.context("the watch ended")?;
        ensure!(matches!(started.change, Some(Change::Started(_))), "a watch begins with Started");
        let (sender, arrivals) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(response)) = changes.message().await {
                if let Some(Change::Message(summary)) = response.change
                    && let Some(number) = number_of(&summary.subject)
                    && sender.send((number, Instant::now())).is_err()
                {
                    return;
                }
            }
        });
        Ok(arrivals)
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
