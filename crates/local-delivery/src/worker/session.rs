//! The stream to the queue, and the next one when it breaks.

use std::time::{Duration, Instant};

use posthorn_api::period;
use posthorn_api::work::v1::{
    Batch, Credit, Hello, Release, WorkKind, WorkRequest, WorkResponse, work_request, work_response,
    work_service_client::WorkServiceClient,
};
use posthorn_service::{Channel, Need, wait_for};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Ended;
use super::item::Job;
use super::leases::Leases;
use crate::config::Work;

/// Batches may carry much: above tonic's default of 4 MiB.
const MESSAGE_BYTES: usize = 64 << 20;
/// Outcomes that go into one report at most.
const REPORT_ITEMS: usize = 4096;
/// How long the queue may take to end a stream that this side has ended.
const CLOSE: Duration = Duration::from_secs(2);
/// Requests that may wait to be sent.
const REQUESTS: usize = 64;

pub(crate) struct Session {
    client: WorkServiceClient<Channel>,
    config: Work,
    jobs: mpsc::Sender<Job>,
    ended: mpsc::Receiver<Ended>,
    shutdown: CancellationToken,
    leases: Leases,
}

/// One connection's two directions.
struct Stream {
    requests: mpsc::Sender<WorkRequest>,
    responses: Streaming<WorkResponse>,
}

/// The stream broke.
struct Broken(String);

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self(status.message().to_owned())
    }
}

impl Session {
    pub(crate) fn new(
        queue: Channel,
        config: Work,
        jobs: mpsc::Sender<Job>,
        ended: mpsc::Receiver<Ended>,
        shutdown: CancellationToken,
    ) -> Self {
        let client = WorkServiceClient::new(queue)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        Self { client, config, jobs, ended, shutdown, leases: Leases::default() }
    }

    /// Works, over as many connections as it takes, until told to stop and nothing is in hand.
    pub(crate) async fn run(mut self, need: &Need) {
        let shutdown = self.shutdown.clone();
        loop {
            let (client, first) = (self.client.clone(), self.first_requests());
            let connect = move || connect(client.clone(), first.clone());
            let Some(mut stream) = wait_for(need, &shutdown, connect).await else { break };
            match self.serve(&mut stream).await {
                Ok(()) => {
                    stream.close().await;
                    if shutdown.is_cancelled() {
                        return;
                    }
                }
                Err(Broken(reason)) => {
                    need.missing(&reason);
                    tracing::warn!(%reason, open = self.leases.len(), "the stream to the queue broke");
                }
            }
        }
        // Told to stop while the queue is away: what is in hand falls due again when its lease ends, and a delivery
        // that was made is not made again.
        if !self.leases.is_empty() {
            tracing::warn!(
                open = self.leases.len(),
                "stopping without the queue: outcomes were not recorded"
            );
        }
    }

    /// What a new stream begins with: hello, what was not recorded, and credit for what is free.
    fn first_requests(&self) -> Vec<WorkRequest> {
        let hello =
            Hello { kind: WorkKind::Local.into(), worker: worker_name(), max_batch: self.config.max_batch };
        let credit = Credit { batches: self.config.credits.saturating_sub(self.leases.len()) };
        [work_request::Request::Hello(hello)]
            .into_iter()
            .chain(self.leases.unrecorded().cloned().map(work_request::Request::Report))
            .chain((credit.batches > 0).then_some(work_request::Request::Credit(credit)))
            .map(|request| WorkRequest { request: Some(request) })
            .collect()
    }

    /// One connection, until it breaks, the queue sends us away, or all is done after the signal to stop.
    async fn serve(&mut self, stream: &mut Stream) -> Result<(), Broken> {
        let mut leaving = false;
        let mut ended = Vec::new();
        let shutdown = self.shutdown.clone();
        loop {
            if (leaving || shutdown.is_cancelled()) && self.leases.is_empty() {
                return Ok(());
            }
            let extend_at = self.leases.extend_at();
            tokio::select! {
                response = stream.responses.message() => {
                    let response = response?.ok_or_else(|| Broken("the queue closed the stream".into()))?;
                    leaving |= self.answer(response, stream, leaving).await?;
                }
                _ = self.ended.recv_many(&mut ended, REPORT_ITEMS) => {
                    self.pass_on(&mut ended, stream, leaving).await?;
                }
                () = tokio::time::sleep_until(extend_at.unwrap_or_else(Instant::now).into()),
                    if extend_at.is_some() =>
                {
                    if let Some(extend) = self.leases.extend(Instant::now()) {
                        stream.send(work_request::Request::Extend(extend)).await?;
                    }
                }
                () = shutdown.cancelled(), if !leaving => leaving = true,
            }
        }
    }

    /// Takes what the queue says; true when it sends us away.
    async fn answer(
        &mut self,
        response: WorkResponse,
        stream: &Stream,
        leaving: bool,
    ) -> Result<bool, Broken> {
        match response.response {
            Some(work_response::Response::Batch(batch)) => self.take(batch, stream).await?,
            Some(work_response::Response::Recorded(recorded)) => {
                if !recorded.stale.is_empty() {
                    metrics::counter!("posthorn_local_delivery_stale_outcomes_total")
                        .increment(recorded.stale.len() as u64);
                    tracing::warn!(items = recorded.stale.len(), "outcomes came after their lease had ended");
                }
                let batches = self.leases.recorded(recorded.report_id);
                stream.credit(batches, leaving).await?;
            }
            Some(work_response::Response::GoAway(go_away)) => {
                tracing::info!(reason = go_away.reason, "the queue sends this worker away");
                return Ok(true);
            }
            None => {}
        }
        Ok(false)
    }

    /// Hands a batch to the writers; what they have no room for goes back.
    async fn take(&mut self, batch: Batch, stream: &Stream) -> Result<(), Broken> {
        let lease = batch.lease.map(period).unwrap_or_default();
        self.leases.begin(batch.token.clone(), batch.items.len(), lease, Instant::now());
        let mut back = Vec::new();
        for item in batch.items {
            if let Err(full) = self.jobs.try_send(Job { token: batch.token.clone(), item }) {
                let (mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job)) = full;
                self.leases.item_ended(&job.token);
                back.push(job.release());
            }
        }
        if back.is_empty() {
            return Ok(());
        }
        tracing::warn!(items = back.len(), "the queue sent more than was asked for");
        stream.send(work_request::Request::Release(Release { items: back })).await
    }

    /// Tells the queue what the writers have ended, all in one report.
    async fn pass_on(
        &mut self,
        ended: &mut Vec<Ended>,
        stream: &Stream,
        leaving: bool,
    ) -> Result<(), Broken> {
        let (mut reports, mut back) = (Vec::new(), Vec::new());
        for ended in ended.drain(..) {
            match ended {
                Ended::Done(report) => reports.push(report),
                Ended::NotBegun(item) => back.push(item),
            }
        }
        // Both are noted before anything is sent: the stream may break in between.
        let batches = back.iter().map(|item| self.leases.item_ended(&item.token)).sum();
        if !reports.is_empty() {
            let report = self.leases.report(reports);
            stream.send(work_request::Request::Report(report)).await?;
        }
        if !back.is_empty() {
            stream.send(work_request::Request::Release(Release { items: back })).await?;
        }
        stream.credit(batches, leaving).await
    }
}

impl Stream {
    /// Ends the requests and waits until the queue has taken them: a stream that is dropped is cut.
    async fn close(self) {
        let Self { requests, mut responses } = self;
        drop(requests);
        let taken = async { while let Ok(Some(_)) = responses.message().await {} };
        let _ = tokio::time::timeout(CLOSE, taken).await;
    }

    async fn send(&self, request: work_request::Request) -> Result<(), Broken> {
        let request = WorkRequest { request: Some(request) };
        self.requests.send(request).await.map_err(|_| Broken("the queue closed the stream".into()))
    }

    /// Gives back the credit of batches that have ended, unless no more are wanted.
    async fn credit(&self, batches: u32, leaving: bool) -> Result<(), Broken> {
        if batches == 0 || leaving {
            return Ok(());
        }
        self.send(work_request::Request::Credit(Credit { batches })).await
    }
}

/// Opens a stream.
async fn connect(mut client: WorkServiceClient<Channel>, first: Vec<WorkRequest>) -> Result<Stream, Status> {
    let (requests, outgoing) = mpsc::channel(first.len() + REQUESTS);
    for request in first {
        requests.try_send(request).expect("the channel was made large enough for the first requests");
    }
    let responses = client.work(ReceiverStream::new(outgoing)).await?.into_inner();
    Ok(Stream { requests, responses })
}

/// What the queue's logs call this worker.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
