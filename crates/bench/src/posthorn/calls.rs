//! What is asked of a running Posthorn.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use posthorn_api::directory::v1::directory_service_client::DirectoryServiceClient;
use posthorn_api::directory::v1::{Account, CreateAccountRequest, CreateRouteRequest, Route, RouteHost};
use posthorn_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use posthorn_api::mailbox::v1::watch_response::Change;
use posthorn_api::mailbox::v1::{ListFoldersRequest, WatchRequest};
use posthorn_api::queue::v1::queue_service_client::QueueServiceClient;
use posthorn_api::queue::v1::{
    BounceRequest, Filter, ListMessagesRequest, StatsRequest, StatsResponse, SuspendRequest, Target, target,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::Posthorn;
use crate::letter::{SENDER, number_of};
use crate::server::Arrival;

impl Posthorn {
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

    /// Whether something of a message is still owed. Asked again and again while the server works, so not for `Stats`,
    /// which counts all recipients.
    pub(crate) async fn owes(&self) -> Result<bool> {
        let mut queue = QueueServiceClient::new(self.queue.clone());
        let request = ListMessagesRequest { page_size: 1, ..Default::default() };
        Ok(!queue.list_messages(request).await?.into_inner().messages.is_empty())
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

    /// Lets nothing go to a destination.
    pub(crate) async fn suspend(&self, destination: &str) -> Result<()> {
        let request = SuspendRequest { destination: destination.to_owned(), reason: "measured".to_owned() };
        QueueServiceClient::new(self.queue.clone()).suspend(request).await?;
        Ok(())
    }

    /// The bytes that Redis says its data take.
    pub(crate) async fn redis_memory(&self) -> Result<u64> {
        let mut redis = TcpStream::connect(("127.0.0.1", self.port(16379))).await?;
        redis.write_all(b"INFO memory\r\nQUIT\r\n").await?;
        let mut answer = String::new();
        redis.read_to_string(&mut answer).await?;
        let used = answer.lines().find_map(|line| line.strip_prefix("used_memory:"));
        used.context("Redis does not say how much it uses")?.trim().parse().context("a number of bytes")
    }
}
