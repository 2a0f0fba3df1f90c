//! A queue with stores of its own, and workers whose every step the test decides.

use std::time::Duration;

use bytes::Bytes;
use posthorn_api::mail::v1::{self as mail, outcome};
use posthorn_api::queue::v1::{self as admin, queue_service_client::QueueServiceClient};
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_api::spool::v1::{
    AcceptItem, AcceptRequest, AcceptResult, AcceptStart, ReadContentRequest, accept_result,
};
use posthorn_api::trace::v1::trace_service_client::TraceServiceClient;
use posthorn_api::work::v1::{self as work, work_service_client::WorkServiceClient};
use posthorn_mail::MessageId;
use posthorn_queue::Config;
use posthorn_service::config::Sources;
use posthorn_service::{Channel, Process};
use posthorn_stores::{Redis, free_port};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

pub(crate) use posthorn_testkit::wait::until;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Stores, and settings for queues on them.
pub(crate) struct Stores {
    pub(crate) database: String,
    pub(crate) redis: Redis,
    pub(crate) pool: PgPool,
}

impl Stores {
    pub(crate) async fn new() -> Self {
        let owner = posthorn_testkit::stores::database().await;
        posthorn_content::migrate(&owner).await.expect("content migrates");
        posthorn_queue::migrate(&owner).await.expect("spool migrates");
        let database = posthorn_testkit::stores::as_role(&owner, "posthorn_queue").await;
        let pool = PgPool::connect(&owner).await.expect("the database answers");
        Self { database, redis: posthorn_testkit::stores::redis().await, pool }
    }

    /// Starts a queue on these stores.
    pub(crate) async fn queue(&self, settings: &[(&str, &str)]) -> Queue {
        let (grpc, http) = (free_port().expect("a port"), free_port().expect("a port"));
        let mut command_line = vec![
            ("queue.database.url".to_owned(), self.database.clone()),
            ("queue.redis.url".to_owned(), self.redis.url()),
            ("queue.listen.grpc".to_owned(), format!("127.0.0.1:{grpc}")),
            ("queue.listen.http".to_owned(), format!("127.0.0.1:{http}")),
            ("queue.listen.drain".to_owned(), "1s".to_owned()),
            ("queue.hostname".to_owned(), "mx.example.test".to_owned()),
        ];
        command_line.extend(settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let config =
            Config::load(&Sources { command_line, ..Default::default() }).expect("the settings are good");
        let process = Process::new(CancellationToken::new(), None);
        let task = tokio::spawn(posthorn_queue::run(config, process.clone()));
        let ready = process.ready.clone();
        until("the queue to be ready", LIMIT, async || ready.missing().is_empty().then_some(())).await;
        let channel = posthorn_service::connect(&format!("http://127.0.0.1:{grpc}")).expect("a URL");
        Queue { process, task, channel }
    }

    /// Rows of a table of the spool.
    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(statement).fetch_one(&self.pool).await.expect("the table can be counted")
    }

    /// Does something to the tables, as their owner.
    pub(crate) async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.pool).await.expect("the statement is good");
    }

    /// Waits until nothing is owed any more.
    pub(crate) async fn until_empty(&self) {
        until("the spool to be empty", LIMIT, async || {
            let left = self.count("spool.message").await + self.count("spool.recipient").await;
            (left == 0).then_some(())
        })
        .await;
    }

    /// Whether the schedule holds a destination back because it is suspended.
    pub(crate) async fn holds_back(&self) -> bool {
        let mut connection = self.redis().await;
        let keys: Vec<Vec<u8>> =
            redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("the keys");
        for key in keys {
            let has: Result<bool, _> =
                redis::cmd("HEXISTS").arg(key).arg("suspended").query_async(&mut connection).await;
            // What is no hash has none.
            if has.unwrap_or(false) {
                return true;
            }
        }
        false
    }

    pub(crate) async fn flush_redis(&self) {
        redis::cmd("FLUSHALL").exec_async(&mut self.redis().await).await.expect("it flushes");
    }

    async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.redis.url()).expect("a URL");
        client.get_multiplexed_async_connection().await.expect("Redis answers")
    }
}

/// A running queue.
pub(crate) struct Queue {
    pub(crate) process: Process,
    task: JoinHandle<Result<(), posthorn_service::Error>>,
    channel: Channel,
}

/// A worker's stream, driven by hand.
pub(crate) struct Worker {
    pub(crate) requests: mpsc::Sender<work::WorkRequest>,
    pub(crate) responses: Streaming<work::WorkResponse>,
    next_report: u64,
    /// Batches that came while something else was waited for.
    early: Vec<work::Batch>,
}

impl Queue {
    pub(crate) fn spool(&self) -> SpoolServiceClient<Channel> {
        SpoolServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub(crate) fn admin(&self) -> QueueServiceClient<Channel> {
        QueueServiceClient::new(self.channel.clone())
    }

    pub(crate) fn trace(&self) -> TraceServiceClient<Channel> {
        TraceServiceClient::new(self.channel.clone())
    }

    /// The ids of the messages that are set aside, once there are some.
    pub(crate) async fn set_aside(&self) -> Vec<String> {
        until("something to be set aside", LIMIT, async || {
            let filter = Some(admin::Filter { poison: true, ..Default::default() });
            let request = admin::ListMessagesRequest { filter, ..Default::default() };
            let listed = self.admin().list_messages(request).await.expect("it lists").into_inner().messages;
            (!listed.is_empty()).then(|| listed.into_iter().map(|message| message.message_id).collect())
        })
        .await
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.process.shutdown.cancel();
        self.task.await.expect("it does not panic").expect("it ends well");
    }

    /// Ends it where it stands.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        self.process.shutdown.cancel();
    }

    /// Hands messages in; all must be accepted.
    pub(crate) async fn accept(&self, items: Vec<AcceptItem>) {
        for result in self.try_accept(items).await {
            assert!(matches!(result.result, Some(accept_result::Result::Accepted(_))), "{result:?}");
        }
    }

    pub(crate) async fn try_accept(&self, items: Vec<AcceptItem>) -> Vec<AcceptResult> {
        self.spool().accept(AcceptRequest { items }).await.expect("the call succeeds").into_inner().results
    }

    /// The bytes of a message in the spool.
    pub(crate) async fn content(&self, message_id: &Bytes) -> Vec<u8> {
        let request = ReadContentRequest { message_id: message_id.clone() };
        let mut chunks = self.spool().read_content(request).await.expect("it is there").into_inner();
        let mut content = Vec::new();
        while let Some(part) = chunks.message().await.expect("it can be read") {
            content.extend_from_slice(&part.chunk);
        }
        content
    }

    pub(crate) async fn worker(&self, kind: work::WorkKind, credits: u32, max_batch: u32) -> Worker {
        let hello = work::Hello { kind: kind.into(), worker: "test".into(), max_batch, takes_early: false };
        self.worker_that_says(hello, credits).await
    }

    pub(crate) async fn worker_that_says(&self, hello: work::Hello, credits: u32) -> Worker {
        let (requests, receiver) = mpsc::channel(64);
        send(&requests, work::work_request::Request::Hello(hello)).await;
        send(&requests, work::work_request::Request::Credit(work::Credit { batches: credits })).await;
        let mut client = WorkServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        let responses =
            client.work(ReceiverStream::new(receiver)).await.expect("the stream opens").into_inner();
        Worker { requests, responses, next_report: 0, early: Vec::new() }
    }
}

async fn send(requests: &mpsc::Sender<work::WorkRequest>, request: work::work_request::Request) {
    requests.send(work::WorkRequest { request: Some(request) }).await.expect("the stream is open");
}

impl Worker {
    pub(crate) async fn credit(&self, batches: u32) {
        send(&self.requests, work::work_request::Request::Credit(work::Credit { batches })).await;
    }

    /// The next batch; gives the credit back for another.
    pub(crate) async fn batch(&mut self) -> work::Batch {
        if !self.early.is_empty() {
            return self.early.remove(0);
        }
        match self.response().await {
            work::work_response::Response::Batch(batch) => batch,
            other => panic!("no batch: {other:?}"),
        }
    }

    /// Gives a batch back that was not begun.
    pub(crate) async fn give_back(&mut self, batch: &work::Batch) {
        let released = |item: &work::Item| work::ReleasedItem {
            token: batch.token.clone(),
            message_id: item.message_id.clone(),
        };
        let items = batch.items.iter().map(released).collect();
        send(&self.requests, work::work_request::Request::Release(work::Release { items })).await;
    }

    /// Asserts that nothing comes for a while.
    pub(crate) async fn nothing(&mut self, length: Duration) {
        let response = tokio::time::timeout(length, self.responses.message()).await;
        assert!(response.is_err(), "nothing was expected: {response:?}");
    }

    pub(crate) async fn response(&mut self) -> work::work_response::Response {
        let response = tokio::time::timeout(LIMIT, self.responses.message());
        let response = response.await.expect("a response comes").expect("the stream is good");
        response.expect("the stream goes on").response.expect("a response")
    }

    /// Reports items and waits for the word; returns the stale ones.
    pub(crate) async fn report(&mut self, items: Vec<work::ItemReport>) -> Vec<MessageId> {
        self.next_report += 1;
        let report = work::Report { report_id: self.next_report, items };
        send(&self.requests, work::work_request::Request::Report(report)).await;
        loop {
            match self.response().await {
                work::work_response::Response::Recorded(recorded) => {
                    assert_eq!(recorded.report_id, self.next_report);
                    let id =
                        |item: &work::ReleasedItem| MessageId::try_from(&item.message_id[..]).expect("an id");
                    return recorded.stale.iter().map(id).collect();
                }
                work::work_response::Response::Batch(batch) => self.early.push(batch),
                other => panic!("no word: {other:?}"),
            }
        }
    }

    /// Routes all of a batch by `decide`; nothing may be stale.
    pub(crate) async fn route(
        &mut self,
        batch: &work::Batch,
        decide: impl Fn(&str) -> Vec<work::RouteTarget>,
    ) {
        let items = batch.items.iter().map(|item| work::ItemReport {
            token: batch.token.clone(),
            message_id: item.message_id.clone(),
            report: Some(work::item_report::Report::Route(work::RouteReport {
                results: item
                    .recipients
                    .iter()
                    .map(|r| work::RouteResult { recipient_no: r.recipient_no, targets: decide(&r.address) })
                    .collect(),
            })),
        });
        let items = items.collect();
        assert_eq!(self.report(items).await, []);
    }

    /// Reports the same outcome for all recipients of a batch; returns the stale items.
    pub(crate) async fn outcome(
        &mut self,
        batch: &work::Batch,
        outcome: impl Fn(&work::ItemRecipient) -> mail::Outcome,
    ) -> Vec<MessageId> {
        let items = batch.items.iter().map(|item| work::ItemReport {
            token: batch.token.clone(),
            message_id: item.message_id.clone(),
            report: Some(work::item_report::Report::Delivery(work::DeliveryReport {
                recipients: item
                    .recipients
                    .iter()
                    .map(|r| work::RecipientOutcome {
                        recipient_no: r.recipient_no,
                        outcome: Some(outcome(r)),
                    })
                    .collect(),
            })),
        });
        let items = items.collect();
        self.report(items).await
    }
}

pub(crate) const CONTENT: &str = "From: a@example.net\r\nSubject: hello\r\n\r\nHello, world\r\n";

/// A message from `sender` to `recipients`, with its id.
pub(crate) fn message(sender: &str, recipients: &[&str]) -> (MessageId, AcceptItem) {
    let id = MessageId::generate();
    let recipients = recipients
        .iter()
        .map(|address| mail::Recipient { address: (*address).to_owned(), ..Default::default() })
        .collect();
    let start = AcceptStart {
        envelope: Some(mail::Envelope { sender: sender.into(), recipients, ..Default::default() }),
        origin: Some(mail::Origin { protocol: "ESMTP".into(), ..Default::default() }),
        message_id: posthorn_api::message_id_bytes(id),
        received_at: Some(posthorn_api::timestamp(time::OffsetDateTime::now_utc())),
        ..Default::default()
    };
    (id, AcceptItem { start: Some(start), content: Bytes::from_static(CONTENT.as_bytes()) })
}

/// A mailbox here.
pub(crate) fn local(address: &str) -> Vec<work::RouteTarget> {
    let target = work::LocalTarget { account_id: Bytes::from_static(&[7; 16]), ..Default::default() };
    vec![work::RouteTarget {
        address: address.into(),
        decision: Some(work::route_target::Decision::Local(target)),
        ..Default::default()
    }]
}

/// Another server, of the address' domain.
pub(crate) fn remote(address: &str) -> Vec<work::RouteTarget> {
    let domain = address.rsplit('@').next().unwrap_or_default();
    let target = work::RemoteTarget { destination: format!("mx.{domain}"), domain: domain.into() };
    vec![work::RouteTarget {
        address: address.into(),
        decision: Some(work::route_target::Decision::Remote(target)),
        ..Default::default()
    }]
}

pub(crate) fn status(code: u32, text: &str) -> mail::Status {
    let words = mail::Words::SaidBare.into();
    mail::Status { code, enhanced: String::new(), text: text.into(), words }
}

fn wire(result: outcome::Result) -> mail::Outcome {
    let remote = mail::RemoteServer { host: "mx.example.net".into(), ..Default::default() };
    mail::Outcome { result: Some(result), remote: Some(remote) }
}

pub(crate) fn delivered() -> mail::Outcome {
    let status = Some(status(250, "ok"));
    wire(outcome::Result::Delivered(mail::Delivered { status, dsn_passed_on: false }))
}

pub(crate) fn deferred(text: &str) -> mail::Outcome {
    let status = Some(status(451, text));
    wire(outcome::Result::Deferred(mail::Deferred { status, destination_unavailable: false }))
}

pub(crate) fn unavailable() -> mail::Outcome {
    let status = Some(status(421, "down"));
    wire(outcome::Result::Deferred(mail::Deferred { status, destination_unavailable: true }))
}

pub(crate) fn failed(text: &str) -> mail::Outcome {
    wire(outcome::Result::Failed(mail::Failed { status: Some(status(550, text)) }))
}
