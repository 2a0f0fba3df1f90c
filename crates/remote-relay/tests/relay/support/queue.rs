//! A queue that hands out what a test gives it and keeps what it is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use posthorn_api::spool::v1 as spool;
use posthorn_api::spool::v1::spool_service_server::{SpoolService, SpoolServiceServer};
use posthorn_api::work::v1::work_service_server::{WorkService, WorkServiceServer};
use posthorn_api::work::v1::{
    Batch, Item, Recorded, WorkRequest, WorkResponse, item_report, work_request, work_response,
};
use posthorn_mail::{MessageId, Outcome};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone, Default)]
pub(crate) struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    batches: Mutex<Vec<Batch>>,
    given: Notify,
    told: Mutex<Told>,
    contents: Mutex<HashMap<Bytes, Vec<Bytes>>>,
    /// The streams that are open, to be broken.
    streams: Mutex<Vec<CancellationToken>>,
    away: AtomicBool,
}

/// What workers have said.
#[derive(Default, Clone)]
pub(crate) struct Told {
    pub(crate) outcomes: HashMap<Bytes, Vec<Outcome>>,
    pub(crate) reports: usize,
    pub(crate) released: Vec<Bytes>,
    pub(crate) extended: usize,
    pub(crate) credits: u32,
    pub(crate) streams: usize,
}

impl Queue {
    pub(crate) async fn serve(self, incoming: TcpListenerStream) {
        tonic::transport::Server::builder()
            .add_service(WorkServiceServer::new(self.clone()))
            .add_service(SpoolServiceServer::new(self))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    }

    /// Hands out a batch under this token, with a lease of a minute.
    pub(crate) fn give(&self, token: &'static str, items: Vec<Item>) {
        self.give_for(token, items, Duration::from_secs(60));
    }

    pub(crate) fn give_for(&self, token: &'static str, items: Vec<Item>, lease: Duration) {
        let batch = Batch {
            token: Bytes::from_static(token.as_bytes()),
            lease: Some(posthorn_api::duration(lease)),
            items,
            destination: "the destination".to_owned(),
            early: false,
        };
        self.0.batches.lock().unwrap().push(batch);
        self.0.given.notify_one();
    }

    /// Keeps a content for ReadContent.
    pub(crate) fn keep(&self, id: MessageId, pieces: Vec<Bytes>) {
        self.0.contents.lock().unwrap().insert(posthorn_api::message_id_bytes(id), pieces);
    }

    pub(crate) fn told(&self) -> Told {
        self.0.told.lock().unwrap().clone()
    }

    pub(crate) fn outcomes(&self, id: MessageId) -> Option<Vec<Outcome>> {
        self.told().outcomes.get(id.as_bytes().as_slice()).cloned()
    }

    /// Breaks all streams; `away`: and takes no new ones until this is called with `false`.
    pub(crate) fn break_streams(&self, away: bool) {
        self.0.away.store(away, Ordering::Relaxed);
        for stream in self.0.streams.lock().unwrap().drain(..) {
            stream.cancel();
        }
    }

    fn hear(&self, request: WorkRequest) -> Option<WorkResponse> {
        let mut told = self.0.told.lock().unwrap();
        match request.request? {
            work_request::Request::Hello(hello) => {
                assert_eq!(hello.kind(), posthorn_api::work::v1::WorkKind::Remote);
                None
            }
            work_request::Request::Credit(credit) => {
                told.credits += credit.batches;
                None
            }
            work_request::Request::Extend(extend) => {
                told.extended += extend.tokens.len();
                None
            }
            work_request::Request::Release(release) => {
                told.released.extend(release.items.into_iter().map(|item| item.message_id));
                None
            }
            work_request::Request::Report(report) => {
                told.reports += 1;
                for item in report.items {
                    let Some(item_report::Report::Delivery(delivery)) = item.report else {
                        panic!("no delivery report")
                    };
                    let outcomes =
                        delivery.recipients.into_iter().map(|r| r.outcome.unwrap().try_into().unwrap());
                    told.outcomes.insert(item.message_id, outcomes.collect());
                }
                let recorded = Recorded { report_id: report.report_id, stale: vec![] };
                Some(WorkResponse { response: Some(work_response::Response::Recorded(recorded)) })
            }
        }
    }

    async fn serve_stream(
        self,
        mut requests: Streaming<WorkRequest>,
        to: mpsc::Sender<Result<WorkResponse, Status>>,
    ) {
        let broken = CancellationToken::new();
        self.0.streams.lock().unwrap().push(broken.clone());
        self.0.told.lock().unwrap().streams += 1;
        loop {
            let batches: Vec<Batch> = self.0.batches.lock().unwrap().drain(..).collect();
            for batch in batches {
                let response = WorkResponse { response: Some(work_response::Response::Batch(batch)) };
                to.send(Ok(response)).await.unwrap();
            }
            tokio::select! {
                request = requests.message() => {
                    let Ok(Some(request)) = request else { return };
                    if let Some(answer) = self.hear(request) {
                        let _ = to.send(Ok(answer)).await;
                    }
                }
                () = self.0.given.notified() => {}
                () = broken.cancelled() => {
                    let _ = to.send(Err(Status::unavailable("broken by the test"))).await;
                    return;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl WorkService for Queue {
    type WorkStream = ReceiverStream<Result<WorkResponse, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        if self.0.away.load(Ordering::Relaxed) {
            return Err(Status::unavailable("away"));
        }
        let (to, responses) = mpsc::channel(16);
        tokio::spawn(self.clone().serve_stream(request.into_inner(), to));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

#[tonic::async_trait]
impl SpoolService for Queue {
    type ReadContentStream = BoxStream<'static, Result<spool::ReadContentResponse, Status>>;

    async fn read_content(
        &self,
        request: Request<spool::ReadContentRequest>,
    ) -> Result<Response<Self::ReadContentStream>, Status> {
        let pieces = self.0.contents.lock().unwrap().get(&request.into_inner().message_id).cloned();
        let pieces = pieces.ok_or_else(|| Status::not_found("no such message"))?;
        let parts = pieces.into_iter().map(|chunk| Ok(spool::ReadContentResponse { chunk }));
        let parts: Box<dyn Stream<Item = _> + Send + Unpin> = Box::new(futures::stream::iter(parts));
        Ok(Response::new(Box::pin(parts)))
    }

    async fn accept(
        &self,
        _: Request<spool::AcceptRequest>,
    ) -> Result<Response<spool::AcceptResponse>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }

    type AcceptEachStream = tonic::codegen::BoxStream<spool::AcceptResponse>;

    async fn accept_each(
        &self,
        _: Request<Streaming<spool::AcceptRequest>>,
    ) -> Result<Response<Self::AcceptEachStream>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }

    async fn accept_stream(
        &self,
        _: Request<Streaming<spool::AcceptStreamRequest>>,
    ) -> Result<Response<spool::AcceptStreamResponse>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }

    async fn settle(
        &self,
        _: Request<spool::SettleRequest>,
    ) -> Result<Response<spool::SettleResponse>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }

    async fn find_key(
        &self,
        _: Request<spool::FindKeyRequest>,
    ) -> Result<Response<spool::FindKeyResponse>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }

    async fn held(&self, _: Request<spool::HeldRequest>) -> Result<Response<spool::HeldResponse>, Status> {
        Err(Status::unimplemented("not for the relay"))
    }
}
