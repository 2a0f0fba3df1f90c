//! A queue of the test's own: it gives what the test says and keeps what the worker sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use posthorn_api::work::v1 as wire;
use posthorn_api::work::v1::work_request::Request as Asked;
use posthorn_api::work::v1::work_response::Response as Said;
use posthorn_api::work::v1::work_service_server::{WorkService, WorkServiceServer};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::running::LIMIT;

/// One worker's stream, as the queue sees it.
pub(crate) struct Worker {
    requests: Streaming<wire::WorkRequest>,
    responses: mpsc::UnboundedSender<Result<wire::WorkResponse, Status>>,
    pub(crate) credits: u32,
    pub(crate) released: Vec<Vec<u8>>,
    pub(crate) extended: usize,
}

#[derive(Clone)]
struct Streams(mpsc::UnboundedSender<Worker>);

#[tonic::async_trait]
impl WorkService for Streams {
    type WorkStream = UnboundedReceiverStream<Result<wire::WorkResponse, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<wire::WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (responses, outgoing) = mpsc::unbounded_channel();
        let requests = request.into_inner();
        let worker = Worker { requests, responses, credits: 0, released: Vec::new(), extended: 0 };
        let _ = self.0.send(worker);
        Ok(Response::new(UnboundedReceiverStream::new(outgoing)))
    }
}

/// Listens for workers.
pub(crate) struct Queue {
    pub(crate) address: SocketAddr,
    workers: Arc<Mutex<mpsc::UnboundedReceiver<Worker>>>,
}

impl Queue {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (streams, workers) = mpsc::unbounded_channel();
        let server =
            tonic::transport::Server::builder().add_service(WorkServiceServer::new(Streams(streams)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, workers: Arc::new(Mutex::new(workers)) }
    }

    /// The URL as a setting.
    pub(crate) fn setting(&self) -> String {
        format!("\"http://{}\"", self.address)
    }

    /// The next worker, past its Hello.
    pub(crate) async fn worker(&self) -> Worker {
        let mut workers = self.workers.lock().await;
        let next = tokio::time::timeout(LIMIT, workers.recv()).await;
        let mut worker = next.expect("a worker connects in time").unwrap();
        let Asked::Hello(hello) = worker.next().await.expect("a first request") else {
            panic!("the first request is no Hello")
        };
        assert_eq!(hello.kind(), wire::WorkKind::Route);
        worker
    }
}

impl Worker {
    /// The next request; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Asked> {
        let next = tokio::time::timeout(LIMIT, self.requests.message()).await;
        next.expect("the worker says something in time").ok()??.request
    }

    /// The next report, which is recorded; credits, releases and extensions before it are counted.
    pub(crate) async fn report(&mut self) -> wire::Report {
        loop {
            match self.next().await.expect("the stream goes on") {
                Asked::Report(report) => {
                    self.record(&report);
                    return report;
                }
                other => self.count(other),
            }
        }
    }

    /// The next request that is no report.
    pub(crate) async fn next_but_reports(&mut self) {
        match self.next().await.expect("the stream goes on") {
            Asked::Report(_) => panic!("a report was not expected"),
            other => self.count(other),
        }
    }

    fn count(&mut self, request: Asked) {
        match request {
            Asked::Credit(credit) => self.credits += credit.batches,
            Asked::Release(release) => {
                self.released.extend(release.items.iter().map(|item| item.message_id.to_vec()));
            }
            Asked::Extend(_) => self.extended += 1,
            Asked::Hello(_) | Asked::Report(_) => panic!("{request:?} was not expected"),
        }
    }

    pub(crate) fn record(&self, report: &wire::Report) {
        let recorded = wire::Recorded { report_id: report.report_id, stale: Vec::new() };
        self.say(Said::Recorded(recorded));
    }

    pub(crate) fn say(&self, response: Said) {
        self.responses.send(Ok(wire::WorkResponse { response: Some(response) })).unwrap();
    }

    /// Gives a batch of messages, each to these recipients, on a lease of a minute.
    pub(crate) fn give(&self, token: &str, messages: &[&[&str]]) {
        self.give_for(token, messages, Duration::from_secs(60));
    }

    pub(crate) fn give_for(&self, token: &str, messages: &[&[&str]], lease: Duration) {
        let batch = wire::Batch {
            token: token.as_bytes().to_vec().into(),
            lease: Some(posthorn_api::duration(lease)),
            items: messages.iter().map(|recipients| item(recipients)).collect(),
            destination: String::new(),
            early: false,
        };
        self.say(Said::Batch(batch));
    }
}

fn item(recipients: &[&str]) -> wire::Item {
    let recipients = recipients.iter().zip(1..).map(|(address, recipient_no)| wire::ItemRecipient {
        recipient_no,
        address: (*address).into(),
        ..Default::default()
    });
    wire::Item {
        message_id: Uuid::now_v7().as_bytes().to_vec().into(),
        sender: "sender@example.net".into(),
        recipients: recipients.collect(),
        ..Default::default()
    }
}

/// What a report says of the recipients of its only message, shortly: "ADDRESS local", "ADDRESS remote DESTINATION",
/// "ADDRESS STATUS".
pub(crate) fn decisions(report: &wire::Report) -> Vec<String> {
    assert_eq!(report.items.len(), 1, "one message is reported");
    let Some(wire::item_report::Report::Route(route)) = &report.items[0].report else {
        panic!("no route report")
    };
    route.results.iter().flat_map(|result| &result.targets).map(decision).collect()
}

fn decision(target: &wire::RouteTarget) -> String {
    use wire::route_target::Decision;
    let what = match target.decision.as_ref().unwrap() {
        Decision::Local(_) => "local".to_owned(),
        Decision::Remote(remote) => format!("remote {} {}", remote.destination, remote.domain),
        Decision::Fail(status) | Decision::Later(status) => format!("{} {}", status.code, status.enhanced),
    };
    format!("{} {what}", target.address)
}
