//! Queues of the test's own: they give what the test says, and the test hears what the worker says.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use posthorn_api::work::v1 as wire;
use posthorn_api::work::v1::work_request::Request as Asked;
use posthorn_api::work::v1::work_response::Response as Said;
use posthorn_api::work::v1::work_service_server::{WorkService, WorkServiceServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// No condition takes so long, however busy the machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Queue {
    pub(crate) address: SocketAddr,
    streams: mpsc::UnboundedReceiver<Stream>,
}

/// A worker's stream, as the queue sees it.
pub(crate) struct Stream {
    requests: Streaming<wire::WorkRequest>,
    responses: mpsc::UnboundedSender<Result<wire::WorkResponse, Status>>,
}

struct Service(mpsc::UnboundedSender<Stream>);

#[tonic::async_trait]
impl WorkService for Service {
    type WorkStream = UnboundedReceiverStream<Result<wire::WorkResponse, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<wire::WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (responses, outgoing) = mpsc::unbounded_channel();
        let stream = Stream { requests: request.into_inner(), responses };
        self.0.send(stream).map_err(|_| Status::unavailable("the test takes no workers any more"))?;
        Ok(Response::new(UnboundedReceiverStream::new(outgoing)))
    }
}

impl Queue {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, streams) = mpsc::unbounded_channel();
        let server = tonic::transport::Server::builder().add_service(WorkServiceServer::new(Service(tell)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, streams }
    }

    /// The next stream, past its Hello.
    pub(crate) async fn stream(&mut self) -> Stream {
        let next = tokio::time::timeout(LIMIT, self.streams.recv()).await;
        let mut stream = next.expect("a worker connects in time").unwrap();
        let Some(Asked::Hello(hello)) = stream.next().await else { panic!("it begins with no Hello") };
        assert_eq!((hello.kind(), hello.max_batch, hello.takes_early), (wire::WorkKind::Local, 10, true));
        stream
    }

    /// Whether a stream was begun that nobody has asked for yet.
    pub(crate) fn has_another(&self) -> bool {
        !self.streams.is_empty()
    }

    /// No more streams are taken.
    pub(crate) fn goes_away(&mut self) {
        self.streams.close();
    }
}

impl Stream {
    /// What the worker says next; `None` at the end of the stream, however it ends.
    pub(crate) async fn next(&mut self) -> Option<Asked> {
        let next = tokio::time::timeout(LIMIT, self.requests.message()).await;
        next.expect("the worker says something in time").ok()??.request
    }

    pub(crate) async fn credit(&mut self) -> u32 {
        match self.next().await {
            Some(Asked::Credit(credit)) => credit.batches,
            other => panic!("{other:?} is no credit"),
        }
    }

    pub(crate) async fn report(&mut self) -> wire::Report {
        match self.next().await {
            Some(Asked::Report(report)) => report,
            other => panic!("{other:?} is no report"),
        }
    }

    /// How many items are given back next.
    pub(crate) async fn released(&mut self) -> usize {
        match self.next().await {
            Some(Asked::Release(release)) => release.items.len(),
            other => panic!("{other:?} is no release"),
        }
    }

    pub(crate) fn give(&self, token: &'static str, items: u8) {
        self.give_for(token, items, Duration::from_secs(60));
    }

    pub(crate) fn give_for(&self, token: &'static str, items: u8, lease: Duration) {
        self.give_batch(token, items, lease, false);
    }

    /// An item that is not in the ledger yet.
    pub(crate) fn give_early(&self, token: &'static str) {
        self.give_batch(token, 1, Duration::from_secs(60), true);
    }

    pub(crate) fn keep(&self, token: &'static str, is_kept: bool) {
        self.say(Said::Kept(wire::Kept { token: Bytes::from_static(token.as_bytes()), is_kept }));
    }

    fn give_batch(&self, token: &'static str, items: u8, lease: Duration, early: bool) {
        let item = |n| wire::Item { message_id: Bytes::from(vec![n; 16]), ..wire::Item::default() };
        self.say(Said::Batch(wire::Batch {
            token: Bytes::from_static(token.as_bytes()),
            lease: Some(posthorn_api::duration(lease)),
            items: (0..items).map(item).collect(),
            destination: String::new(),
            early,
        }));
    }

    pub(crate) fn record(&self, report: &wire::Report) {
        self.say(Said::Recorded(wire::Recorded { report_id: report.report_id, stale: Vec::new() }));
    }

    pub(crate) fn send_away(&self) {
        self.say(Said::GoAway(wire::GoAway { reason: "the test says so".into() }));
    }

    /// Ends the stream with an error.
    pub(crate) fn refuse(self, status: Status) {
        self.responses.send(Err(status)).unwrap();
    }

    fn say(&self, response: Said) {
        self.responses.send(Ok(wire::WorkResponse { response: Some(response) })).unwrap();
    }
}
