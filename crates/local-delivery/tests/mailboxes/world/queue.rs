//! A queue that sends the batches that the test gives it and keeps what the worker says.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use posthorn_api::mail::v1::outcome::Result as Said;
use posthorn_api::spool::v1 as api_spool;
use posthorn_api::spool::v1::spool_service_server::{SpoolService, SpoolServiceServer};
use posthorn_api::work::v1::work_service_server::{WorkService, WorkServiceServer};
use posthorn_api::work::v1::{
    Batch, Extend, Item, Recorded, Release, Report, WorkRequest, WorkResponse, item_report, work_request,
    work_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::{LIMIT, batch};

type Answer = Result<WorkResponse, Status>;

pub(crate) struct Queue {
    pub(crate) url: String,
    state: Arc<State>,
    said: mpsc::UnboundedReceiver<Heard>,
}

/// What the worker said, but for hello and credit.
#[derive(Debug)]
pub(crate) enum Heard {
    Report(Report),
    Extend(Extend),
    Release(Release),
}

struct State {
    /// To the stream that stands; the test may send anything.
    answers: Mutex<Option<mpsc::Sender<Answer>>>,
    said: mpsc::UnboundedSender<Heard>,
    credits: Mutex<i64>,
    streams: Mutex<u32>,
    /// Reports are answered at once.
    record: Mutex<bool>,
    held: Mutex<HashSet<Bytes>>,
}

impl Queue {
    pub(crate) async fn start() -> Self {
        let (tell, said) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            answers: Mutex::default(),
            said: tell,
            credits: Mutex::new(0),
            streams: Mutex::new(0),
            record: Mutex::new(true),
            held: Mutex::default(),
        });
        let work = WorkServiceServer::new(Work(Arc::clone(&state))).max_decoding_message_size(64 << 20);
        let spool = SpoolServiceServer::new(Spool(Arc::clone(&state)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(work).add_service(spool);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { url, state, said }
    }

    pub(crate) fn credits(&self) -> i64 {
        *self.state.credits.lock().unwrap()
    }

    /// How many streams there have been.
    pub(crate) fn streams(&self) -> u32 {
        *self.state.streams.lock().unwrap()
    }

    pub(crate) fn record(&self, record: bool) {
        *self.state.record.lock().unwrap() = record;
    }

    /// The spool holds this message.
    pub(crate) fn hold(&self, message: Bytes) {
        self.state.held.lock().unwrap().insert(message);
    }

    pub(crate) fn let_go(&self) {
        self.state.held.lock().unwrap().clear();
    }

    pub(crate) async fn send(&self, batch: Batch) {
        self.answer(work_response::Response::Batch(batch)).await;
    }

    pub(crate) async fn answer(&self, response: work_response::Response) {
        let answers = self.state.answers.lock().unwrap().clone().expect("a worker is here");
        answers.send(Ok(WorkResponse { response: Some(response) })).await.expect("the worker listens");
    }

    /// Breaks the stream.
    pub(crate) fn hang_up(&self) {
        *self.state.answers.lock().unwrap() = None;
    }

    pub(crate) async fn heard(&mut self) -> Heard {
        tokio::time::timeout(LIMIT, self.said.recv()).await.expect("the worker says something").unwrap()
    }

    /// Sends a batch and waits for all its outcomes: their statuses by item and recipient.
    pub(crate) async fn work(&mut self, items: Vec<Item>) -> Vec<String> {
        let order: Vec<Bytes> = items.iter().map(|item| item.message_id.clone()).collect();
        let batch = batch(items);
        let token = batch.token.clone();
        self.send(batch).await;
        let mut outcomes: HashMap<Bytes, Vec<String>> = HashMap::new();
        while outcomes.len() < order.len() {
            let Heard::Report(report) = self.heard().await else { continue };
            for item in report.items.into_iter().filter(|item| item.token == token) {
                outcomes.insert(item.message_id.clone(), statuses(item.report.unwrap()));
            }
        }
        order.iter().flat_map(|id| outcomes[id].clone()).collect()
    }
}

/// The outcomes as texts.
pub(crate) fn statuses(report: item_report::Report) -> Vec<String> {
    let item_report::Report::Delivery(report) = report else { panic!("{report:?}") };
    let text = |said: Said| match said {
        Said::Delivered(d) => d.status.unwrap(),
        Said::Deferred(d) => d.status.unwrap(),
        Said::Failed(f) => f.status.unwrap(),
        other => panic!("{other:?}"),
    };
    let outcomes = report.recipients.into_iter().map(|r| text(r.outcome.unwrap().result.unwrap()));
    outcomes.map(|s| format!("{} {} {}", s.code, s.enhanced, s.text)).collect()
}

pub(crate) struct Work(Arc<State>);

#[tonic::async_trait]
impl WorkService for Work {
    type WorkStream = ReceiverStream<Answer>;

    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let mut requests = request.into_inner();
        let state = Arc::clone(&self.0);
        let (answers, stream) = mpsc::channel(64);
        *state.answers.lock().unwrap() = Some(answers.clone());
        *state.credits.lock().unwrap() = 0;
        *state.streams.lock().unwrap() += 1;
        let answers = answers.downgrade();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let heard = match request.request.expect("a request") {
                    work_request::Request::Hello(_) => continue,
                    work_request::Request::Credit(credit) => {
                        *state.credits.lock().unwrap() += i64::from(credit.batches);
                        continue;
                    }
                    work_request::Request::Report(report) => {
                        if *state.record.lock().unwrap() {
                            let recorded = Recorded { report_id: report.report_id, stale: Vec::new() };
                            let response = Some(work_response::Response::Recorded(recorded));
                            if let Some(answers) = answers.upgrade() {
                                let _ = answers.send(Ok(WorkResponse { response })).await;
                            }
                        }
                        Heard::Report(report)
                    }
                    work_request::Request::Extend(extend) => Heard::Extend(extend),
                    work_request::Request::Release(release) => Heard::Release(release),
                };
                let _ = state.said.send(heard);
            }
            // The worker has ended its side: so does the queue.
            if let Some(ended) = answers.upgrade() {
                state.answers.lock().unwrap().take_if(|standing| standing.same_channel(&ended));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

pub(crate) struct Spool(Arc<State>);

#[tonic::async_trait]
impl SpoolService for Spool {
    type ReadContentStream = ReceiverStream<Result<api_spool::ReadContentResponse, Status>>;

    async fn settle(
        &self,
        _: Request<api_spool::SettleRequest>,
    ) -> Result<Response<api_spool::SettleResponse>, Status> {
        Err(Status::unimplemented("not for local-delivery"))
    }

    async fn find_key(
        &self,
        _: Request<api_spool::FindKeyRequest>,
    ) -> Result<Response<api_spool::FindKeyResponse>, Status> {
        Err(Status::unimplemented("not for local-delivery"))
    }

    async fn held(
        &self,
        request: Request<api_spool::HeldRequest>,
    ) -> Result<Response<api_spool::HeldResponse>, Status> {
        let held = self.0.held.lock().unwrap();
        let asked = request.into_inner().message_ids.into_iter();
        Ok(Response::new(api_spool::HeldResponse {
            message_ids: asked.filter(|id| held.contains(id)).collect(),
        }))
    }

    async fn accept(
        &self,
        _: Request<api_spool::AcceptRequest>,
    ) -> Result<Response<api_spool::AcceptResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type AcceptEachStream = tonic::codegen::BoxStream<api_spool::AcceptResponse>;

    async fn accept_each(
        &self,
        _: Request<Streaming<api_spool::AcceptRequest>>,
    ) -> Result<Response<Self::AcceptEachStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn accept_stream(
        &self,
        _: Request<Streaming<api_spool::AcceptStreamRequest>>,
    ) -> Result<Response<api_spool::AcceptStreamResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn read_content(
        &self,
        _: Request<api_spool::ReadContentRequest>,
    ) -> Result<Response<Self::ReadContentStream>, Status> {
        Err(Status::unimplemented(""))
    }
}
