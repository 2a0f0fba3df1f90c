//! The stream to the queue, and the next one when it breaks.

use std::time::{Duration, Instant};

use posthorn_api::period;
use posthorn_api::work::v1::{
    Batch, Credit, Hello, Release, WorkRequest, WorkResponse, work_request::Request, work_response::Response,
    work_service_client::WorkServiceClient,
};
use posthorn_service::{Channel, Need, wait_for};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::leased::{self, Ended};
use crate::leases::Leases;
use crate::{MESSAGE_BYTES, Work};

/// Outcomes that go into one report at most.
const REPORT_ITEMS: usize = 4096;
/// How long the queue may take to end a stream that this side has ended.
const CLOSE: Duration = Duration::from_secs(2);
/// A stream that breaks so young is not followed by the next at once: it may break as soon, and again.
const YOUNG: Duration = Duration::from_secs(1);
/// The pause then.
const PAUSE: Duration = Duration::from_millis(200);
/// Requests that may wait to be sent.
const REQUESTS: usize = 64;

/// The worker's side of the work stream, over as many connections as it takes.
pub(crate) struct Session<W> {
    work: W,
    client: WorkServiceClient<Channel>,
    /// As long as what is held, which the credits bound.
    end: mpsc::UnboundedSender<Ended>,
    ended: mpsc::UnboundedReceiver<Ended>,
    shutdown: CancellationToken,
    leases: Leases,
}

/// One connection's two directions.
struct Stream {
    requests: mpsc::Sender<WorkRequest>,
    responses: Streaming<WorkResponse>,
    /// Batches that were asked for and have not come.
    asked: u32,
}

impl<W: Work> Session<W> {
    pub(crate) fn new(work: W, queue: Channel, shutdown: CancellationToken) -> Self {
        let client = WorkServiceClient::new(queue)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let (end, ended) = mpsc::unbounded_channel();
        Self { work, client, end, ended, shutdown, leases: Leases::default() }
    }

    /// Works until told to stop and nothing is held.
    pub(crate) async fn run(mut self, need: &Need, patience: CancellationToken) {
        let shutdown = self.shutdown.clone();
        let hello = Hello { kind: W::KIND.into(), worker: worker_name(), max_batch: self.work.max_batch() };
        loop {
            let patience = if self.leases.is_empty() { &shutdown } else { &patience };
            let (client, hello) = (self.client.clone(), hello.clone());
            let connect = move || Stream::open(client.clone(), hello.clone());
            let Some(mut stream) = wait_for(need, patience, connect).await else { break };
            let begun = Instant::now();
            match self.serve(&mut stream).await {
                Ok(()) => {
                    stream.close().await;
                    if shutdown.is_cancelled() {
                        return;
                    }
                }
                Err(status) => {
                    self.broken(need, &status);
                    if begun.elapsed() < YOUNG {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        if !self.leases.is_empty() {
            let items = self.leases.held(0).items;
            tracing::warn!(items, "stopping without the queue: outcomes were not recorded");
        }
    }

    /// One connection, until it breaks, the queue sends us away, or all is done after the signal to stop.
    async fn serve(&mut self, stream: &mut Stream) -> Result<(), Status> {
        let shutdown = self.shutdown.clone();
        let (mut sent_away, mut ended) = (false, Vec::new());
        for report in self.leases.unrecorded() {
            stream.send(Request::Report(report.clone())).await;
        }
        loop {
            let leaving = sent_away || shutdown.is_cancelled();
            if leaving && self.leases.is_empty() {
                return Ok(());
            }
            if !leaving {
                stream.ask(self.work.ask(self.leases.held(stream.asked))).await;
            }
            let extend_at = self.leases.extend_at();
            tokio::select! {
                response = stream.responses.message() => {
                    let response = response?.ok_or_else(|| Status::unavailable("the queue closed the stream"))?;
                    match response.response {
                        Some(Response::Batch(batch)) => {
                            stream.asked = stream.asked.saturating_sub(1);
                            self.take(batch, leaving);
                        }
                        Some(Response::Recorded(recorded)) => {
                            stale::<W>(recorded.stale.len());
                            self.leases.recorded(recorded.report_id);
                        }
                        Some(Response::GoAway(go_away)) => {
                            tracing::info!(reason = go_away.reason, "the queue sends this worker away");
                            sent_away = true;
                        }
                        // Of a newer neighbour.
                        None => {}
                    }
                }
                _ = self.ended.recv_many(&mut ended, REPORT_ITEMS) => {
                    let (reports, items) = self.leases.end(ended.drain(..));
                    for report in reports {
                        stream.send(Request::Report(report)).await;
                    }
                    if !items.is_empty() {
                        stream.send(Request::Release(Release { items })).await;
                    }
                }
                () = tokio::time::sleep_until(extend_at.unwrap_or_else(Instant::now).into()),
                    if extend_at.is_some() =>
                {
                    if let Some(extend) = self.leases.extend(Instant::now()) {
                        stream.send(Request::Extend(extend)).await;
                    }
                }
                () = self.work.changed(), if !leaving => {}
                () = shutdown.cancelled(), if !leaving => {}
            }
        }
    }

    /// Has a batch begun, or gives it back.
    fn take(&mut self, batch: Batch, leaving: bool) {
        let lease = batch.lease.map(period).unwrap_or_default();
        let end = self.leases.begin(batch.token.clone(), batch.items.len(), lease, Instant::now());
        let batch = leased::Batch::new(batch, end, self.end.clone());
        if leaving {
            drop(batch);
        } else {
            self.work.begin(batch);
        }
    }

    fn broken(&mut self, need: &Need, status: &Status) {
        need.missing(status.message());
        let held = self.leases.held(0);
        tracing::warn!(reason = status.message(), open = held.batches, "the stream to the queue broke");
        // A report that the queue cannot read would break every stream.
        if status.code() == Code::InvalidArgument {
            let items = self.leases.forget_unrecorded();
            tracing::error!(
                items,
                "the queue refuses what was reported; it falls due again when its lease ends"
            );
        }
    }
}

impl Stream {
    async fn open(mut client: WorkServiceClient<Channel>, hello: Hello) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        // The queue answers when it has been greeted: that goes before the call.
        let _ = requests.try_send(WorkRequest { request: Some(Request::Hello(hello)) });
        let responses = client.work(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { requests, responses, asked: 0 })
    }

    /// Sends. That it could not be is seen by the responses, which say why: what matters is noted and told again.
    async fn send(&self, request: Request) {
        let _ = self.requests.send(WorkRequest { request: Some(request) }).await;
    }

    async fn ask(&mut self, batches: u32) {
        if batches > 0 {
            self.asked += batches;
            self.send(Request::Credit(Credit { batches })).await;
        }
    }

    /// Ends the requests and waits until the queue has taken them: a stream that is dropped is cut.
    async fn close(self) {
        let Self { requests, mut responses, .. } = self;
        drop(requests);
        let taken = async { while let Ok(Some(_)) = responses.message().await {} };
        let _ = tokio::time::timeout(CLOSE, taken).await;
    }
}

/// The queue did not take some outcomes.
fn stale<W: Work>(items: usize) {
    if items > 0 {
        metrics::counter!(W::STALE).increment(items as u64);
        tracing::warn!(items, "outcomes came after their lease had ended");
    }
}

/// What the queue's logs call this worker.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
