//! A database, a queue and a router that do as they are told, and local-delivery between them.

mod queue;
mod router;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::append_message_request::Part;
use posthorn_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use posthorn_api::work::v1::{Batch, Item, ItemRecipient, LocalTarget};
use posthorn_local_delivery::Config;
use posthorn_mail::MessageId;
use posthorn_service::{Channel, Process, Readiness};
use posthorn_testkit::{stores, wait};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

pub(crate) use queue::{Heard, Queue, statuses};
use router::Router;
pub(crate) use router::{KEY, Mood, OTHER_SCOPE, OTHER_TENANT};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct World {
    /// As the database's owner.
    pub(crate) pool: PgPool,
    pub(crate) url: String,
    pub(crate) queue: Queue,
    pub(crate) mailbox: MailboxServiceClient<Channel>,
    pub(crate) service: Service,
    router: Router,
    router_url: String,
}

/// Of what the tests read and change.
pub(crate) const ALICE: &str = "alice@example.test";

/// One running local-delivery.
pub(crate) struct Service {
    pub(crate) stop: CancellationToken,
    pub(crate) grpc: String,
    ready: Readiness,
    run: tokio::task::JoinHandle<Result<(), posthorn_service::Error>>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl Fn(&mut Config)) -> Self {
        Self::on(stores::database().await, change).await
    }

    /// On a database of the caller's, as its owner.
    pub(crate) async fn on(owner: String, change: impl Fn(&mut Config)) -> Self {
        posthorn_content::migrate(&owner).await.unwrap();
        posthorn_local_delivery::migrate(&owner).await.unwrap();
        let url = stores::as_role(&owner, "posthorn_local_delivery").await;
        let queue = Queue::start().await;
        let router = Router::default();
        let router_url = router.clone().serve().await;
        let service = Service::start(&url, &queue.url, &router_url, &change).await;
        let channel = posthorn_service::connect(&service.grpc).unwrap();
        let mailbox = MailboxServiceClient::new(channel).max_decoding_message_size(64 << 20);
        Self {
            pool: PgPool::connect(&owner).await.unwrap(),
            url,
            queue,
            mailbox,
            service,
            router,
            router_url,
        }
    }

    /// Another replica, with a queue of its own.
    pub(crate) async fn replica(&self) -> (Service, Queue) {
        self.replica_on(&self.url, |_| ()).await
    }

    /// One that reaches the same database by another way.
    pub(crate) async fn replica_on(&self, url: &str, change: impl Fn(&mut Config)) -> (Service, Queue) {
        let queue = Queue::start().await;
        let service = Service::start(url, &queue.url, &self.router_url, &change).await;
        (service, queue)
    }

    /// An account for this address.
    pub(crate) fn account(&self, address: &str, quota: u64) -> Uuid {
        let id = Uuid::now_v7();
        self.router.accounts.lock().unwrap().insert(address.to_owned(), (id, quota));
        id
    }

    /// Deletes the account of this address.
    pub(crate) fn delete_account(&self, address: &str) -> Uuid {
        self.router.accounts.lock().unwrap().remove(address).expect("there is such an account").0
    }

    /// Brings an account back.
    pub(crate) fn restore_account(&self, address: &str, id: Uuid) {
        self.router.accounts.lock().unwrap().insert(address.to_owned(), (id, 0));
    }

    /// How the router answers which accounts there are, from now on.
    pub(crate) fn router_is(&self, mood: Mood) {
        *self.router.mood.lock().unwrap() = mood;
    }

    /// Waits until the router has been asked so often more which accounts there are, or whose a key is.
    pub(crate) async fn until_asked(&self, times: u32) {
        let until = self.router.asked.load(Ordering::SeqCst) + times;
        wait::until("the router to be asked", LIMIT, async || {
            (self.router.asked.load(Ordering::SeqCst) >= until).then_some(())
        })
        .await;
    }

    /// The key is good no longer.
    pub(crate) fn revoke_key(&self) {
        self.router.revoked.store(true, Ordering::SeqCst);
    }

    /// Puts a content into the store, as the queue does at acceptance.
    pub(crate) async fn content(&self, content: impl Into<Bytes>) -> MessageId {
        let id = MessageId::generate();
        let mut connection = self.pool.acquire().await.unwrap();
        posthorn_content::insert(&mut connection, &[(id, content.into())]).await.unwrap();
        id
    }

    /// An item for one recipient.
    pub(crate) async fn item(&self, account: Uuid, content: &str) -> Item {
        let id = self.content(content.to_owned()).await;
        item(id, content.len(), vec![recipient(0, account)])
    }

    /// Delivers one message and waits until that is reported.
    pub(crate) async fn deliver(&mut self, account: Uuid, content: &str) -> Item {
        let item = self.item(account, content).await;
        let outcomes = self.queue.work(vec![item.clone()]).await;
        assert_eq!(outcomes, ["250 2.0.0 delivered to the mailbox"]);
        item
    }

    pub(crate) async fn list(&mut self, mailbox: &str, folder: &str) -> Vec<api::MessageSummary> {
        let request = api::ListMessagesRequest {
            mailbox: mailbox.into(),
            folder: folder.into(),
            page_size: 1000,
            ..Default::default()
        };
        self.mailbox.list_messages(request).await.unwrap().into_inner().messages
    }

    pub(crate) async fn folders(&mut self, mailbox: &str) -> HashMap<String, api::Folder> {
        let request = api::ListFoldersRequest { mailbox: mailbox.into() };
        let folders = self.mailbox.list_folders(request).await.unwrap().into_inner().folders;
        folders.into_iter().map(|folder| (folder.name.clone(), folder)).collect()
    }

    pub(crate) async fn read(&mut self, request: api::GetMessageRequest) -> Result<Vec<u8>, Status> {
        let mut parts = self.mailbox.get_message(request).await?.into_inner();
        let mut bytes = Vec::new();
        let first = parts.message().await?.unwrap();
        assert!(matches!(first.part, Some(api::get_message_response::Part::Summary(_))));
        while let Some(part) = parts.message().await? {
            match part.part.unwrap() {
                api::get_message_response::Part::Chunk(chunk) => bytes.extend_from_slice(&chunk),
                other => panic!("{other:?}"),
            }
        }
        Ok(bytes)
    }

    /// Appends a message in chunks of this size; the response is its summary.
    pub(crate) async fn append(
        &mut self,
        folder: &str,
        flags: &[&str],
        content: &[u8],
        chunk: usize,
    ) -> Result<api::MessageSummary, Status> {
        let start = api::AppendStart {
            mailbox: ALICE.into(),
            folder: folder.into(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            received_at: None,
        };
        let chunks = content.chunks(chunk).map(|chunk| Part::Chunk(Bytes::copy_from_slice(chunk)));
        let parts: Vec<_> = std::iter::once(Part::Start(start)).chain(chunks).collect();
        let parts = parts.into_iter().map(|part| api::AppendMessageRequest { part: Some(part) });
        let appended = self.mailbox.append_message(tokio_stream::iter(parts)).await?;
        Ok(appended.into_inner().message.unwrap())
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}

impl Service {
    async fn start(database: &str, queue: &str, router: &str, change: &impl Fn(&mut Config)) -> Self {
        let mut config = Config::load(&Default::default()).unwrap();
        config.database.url = database.to_owned();
        config.queue = queue.to_owned();
        config.router = router.to_owned();
        config.listen.grpc = free_address();
        config.listen.http = free_address();
        change(&mut config);
        let grpc = format!("http://{}", config.listen.grpc);
        let stop = CancellationToken::new();
        let process = Process::new(stop.clone(), None);
        let run = tokio::spawn(posthorn_local_delivery::run(config, process.clone()));
        let service = Self { stop, grpc, ready: process.ready, run };
        service.has_all().await;
        service
    }

    /// Waits until it has what it waits for.
    pub(crate) async fn has_all(&self) {
        tokio::time::timeout(LIMIT, self.ready.complete()).await.expect("it has what it waits for in time");
    }

    /// Whether it says that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.is_ready()
    }

    /// Tells it to stop and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.run).await.expect("it stops in time").unwrap().unwrap();
    }
}

pub(crate) fn item(id: MessageId, size: usize, recipients: Vec<ItemRecipient>) -> Item {
    Item {
        message_id: posthorn_api::message_id_bytes(id),
        sender: "sender@example.net".into(),
        size: size as u64,
        recipients,
        ..Item::default()
    }
}

pub(crate) fn recipient(recipient_no: u32, account: Uuid) -> ItemRecipient {
    let local = LocalTarget {
        account_id: Bytes::copy_from_slice(account.as_bytes()),
        tenant_id: "default".into(),
        ..LocalTarget::default()
    };
    ItemRecipient {
        recipient_no,
        address: format!("{account}@example.test"),
        local: Some(local),
        ..ItemRecipient::default()
    }
}

/// The same item with a quota for all its recipients.
pub(crate) fn with_quota(mut item: Item, quota: u64) -> Item {
    for recipient in &mut item.recipients {
        recipient.local.as_mut().unwrap().quota_bytes = quota;
    }
    item
}

/// UIDs of a folder.
pub(crate) fn selection(folder: &str, uids: &[u32]) -> Option<api::Selection> {
    Some(api::Selection { folder: folder.into(), uids: uids.to_vec() })
}

pub(crate) fn batch(items: Vec<Item>) -> Batch {
    Batch {
        token: Bytes::copy_from_slice(Uuid::now_v7().as_bytes()),
        lease: Some(posthorn_api::duration(Duration::from_secs(60))),
        items,
        destination: String::new(),
        early: false,
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
