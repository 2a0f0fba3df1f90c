//! The stream to the queue, and the next one when it breaks.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures::FutureExt as _;
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
use super::leases::Leases;
use crate::MESSAGE_BYTES;
use crate::courier::Courier;

/// Outcomes that go into one report at most.
const REPORT_ITEMS: usize = 4096;

/// The worker's side of the work stream, over as many connections as it takes.
pub(crate) struct Session {
    client: WorkServiceClient<Channel>,
    courier: Courier,
    /// Batches that may be in hand.
    connections: u32,
    max_batch: u32,
    end: mpsc::Sender<Ended>,
    ended: mpsc::Receiver<Ended>,
    shutdown: CancellationToken,
    /// From here on a queue that is away is not waited for.
    cut: CancellationToken,
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
        courier: Courier,
        shutdown: CancellationToken,
        cut: CancellationToken,
    ) -> Self {
        let client = WorkServiceClient::new(queue)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let (connections, max_batch) = (courier.config.connections, courier.config.max_batch);
        let (end, ended) = mpsc::channel(connections as usize * 4);
        let leases = Leases::default();
        Self { client, courier, connections, max_batch, end, ended, shutdown, cut, leases }
    }

    /// Works until told to stop and nothing is in hand.
    pub(crate) async fn run(mut self, need: Need) {
        let shutdown = self.shutdown.clone();
        loop {
            // What was transferred and is not recorded would be transferred again: then a queue that is away is
            // waited for even when told to stop.
            let patience = if self.leases.is_empty() { shutdown.clone() } else { self.cut.clone() };
            let (client, first) = (self.client.clone(), self.first_requests());
            let connect = move || open(client.clone(), first.clone());
            let Some(mut stream) = wait_for(&need, &patience, connect).await else { break };
            match self.serve(&mut stream).await {
                Ok(()) if shutdown.is_cancelled() => return,
                Ok(()) => tracing::info!("the queue asked to reconnect"),
                Err(Broken(reason)) => {
                    need.missing(&reason);
                    tracing::warn!(%reason, open = self.leases.len(), "the stream to the queue broke");
                }
            }
        }
        // What is in hand falls due again when its lease ends.
        if !self.leases.is_empty() {
            tracing::warn!(
                open = self.leases.len(),
                "stopping without the queue: outcomes were not recorded"
            );
        }
    }

    /// What every stream begins with: hello, what was not recorded once more, and credit for the free connections.
    fn first_requests(&self) -> Vec<work_request::Request> {
        let hello = Hello { kind: WorkKind::Remote.into(), worker: worker_name(), max_batch: self.max_batch };
        let batches = self.connections.saturating_sub(self.leases.len());
        [work_request::Request::Hello(hello)]
            .into_iter()
            .chain(self.leases.unrecorded().cloned().map(work_request::Request::Report))
            .chain((batches > 0).then_some(work_request::Request::Credit(Credit { batches })))
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
            metrics::gauge!("posthorn_relay_batches").set(self.leases.len());
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
            Some(work_response::Response::Batch(batch)) => self.take(batch),
            Some(work_response::Response::Recorded(recorded)) => {
                if !recorded.stale.is_empty() {
                    metrics::counter!("posthorn_relay_stale_outcomes_total")
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

    /// Sends a courier with the batch.
    fn take(&mut self, batch: Batch) {
        let (token, now) = (batch.token.clone(), Instant::now());
        let length = batch.lease.map(period).unwrap_or_default();
        let Some(lease) = self.leases.begin(token.clone(), batch.items.len(), length, now) else { return };
        let (courier, end) = (self.courier.clone(), self.end.clone());
        tokio::spawn(async move {
            let delivery = courier.deliver(batch, lease, end.clone());
            // A batch that no one works on any more must not be extended for ever.
            if AssertUnwindSafe(delivery).catch_unwind().await.is_err() {
                tracing::error!("a courier fell over; what it had not reported falls due again");
                let _ = end.send(Ended::Lost(token)).await;
            }
        });
    }

    /// Tells the queue what the couriers have ended, all in one report.
    async fn pass_on(
        &mut self,
        ended: &mut Vec<Ended>,
        stream: &Stream,
        leaving: bool,
    ) -> Result<(), Broken> {
        let (mut reports, mut back, mut batches) = (Vec::new(), Vec::new(), 0);
        for ended in ended.drain(..) {
            match ended {
                Ended::Done(report) => reports.push(report),
                Ended::NotBegun(item) => back.push(item),
                Ended::Lost(token) => batches += self.leases.forget(&token),
            }
        }
        // All is noted before anything is sent: the stream may break in between.
        batches += back.iter().map(|item| self.leases.item_ended(&item.token)).sum::<u32>();
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

async fn open(
    mut client: WorkServiceClient<Channel>,
    first: Vec<work_request::Request>,
) -> Result<Stream, Status> {
    let (requests, outgoing) = mpsc::channel(first.len() + 64);
    for request in first {
        let sent = requests.try_send(WorkRequest { request: Some(request) });
        sent.expect("the channel was made large enough for the first requests");
    }
    let responses = client.work(ReceiverStream::new(outgoing)).await?.into_inner();
    Ok(Stream { requests, responses })
}

impl Stream {
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

/// What the queue's logs call this worker.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
