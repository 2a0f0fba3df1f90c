//! Handing a large message to the queue in chunks, while it still comes in.

use std::time::Duration;

use bytes::Bytes;
use posthorn_api::mail::v1::Body;
use posthorn_api::spool::v1 as wire;
use posthorn_api::spool::v1::accept_stream_request::Part;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_service::Channel;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::handover::{Failure, Kept, NotKept, answer_of, failure};

/// Chunks that may be on their way to the queue; when it is slow, the client waits.
const IN_FLIGHT: usize = 2;

/// How long after a question that was not answered it is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// A message on its way. Dropped before its end, it is cut, and the queue forgets it.
#[derive(Debug)]
pub(crate) struct Upload {
    parts: mpsc::Sender<wire::AcceptStreamRequest>,
    call: JoinHandle<Result<Kept, Failure>>,
    queue: SpoolServiceClient<Channel>,
    message_id: Bytes,
    size: u64,
    timeout: Duration,
}

impl Upload {
    pub(crate) fn start(
        queue: SpoolServiceClient<Channel>,
        timeout: Duration,
        start: wire::AcceptStart,
    ) -> Self {
        let message_id = start.message_id.clone();
        let (parts, sent) = mpsc::channel(IN_FLIGHT);
        parts.try_send(part(Part::Start(start))).expect("a new channel has room");
        let mut caller = queue.clone();
        let call = tokio::spawn(async move {
            match caller.accept_stream(ReceiverStream::new(sent)).await {
                Ok(response) => match response.into_inner().result {
                    Some(result) => answer_of(result),
                    None => Err(Failure::Unknown),
                },
                Err(status) => Err(failure(&status)),
            }
        });
        Self { parts, call, queue, message_id, size: 0, timeout }
    }

    /// Sends the next chunk, as soon as there is room for it. An error says that nothing more is wanted: the queue
    /// has answered already.
    pub(crate) async fn send(&mut self, chunk: Bytes) -> Result<(), NotKept> {
        self.size += chunk.len() as u64;
        match tokio::time::timeout(self.timeout, self.parts.send(part(Part::Chunk(chunk)))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.early_answer().await),
            Err(_) => {
                Err(failure(&tonic::Status::deadline_exceeded("no chunk was taken in time")).of_unfinished())
            }
        }
    }

    /// Says that this was all, what the content was found to hold, and the digest of the request if an idempotency
    /// key wants one; returns the queue's answer. When that is lost, the queue is asked what became of the message.
    pub(crate) async fn finish(mut self, body: Body, digest: Bytes) -> Result<Kept, NotKept> {
        let end = wire::AcceptEnd { size: self.size, answer: Bytes::new(), body: body.into(), digest };
        // If the stream is gone, the answer says why.
        let until = Instant::now() + self.timeout;
        let sent = tokio::time::timeout_at(until, self.parts.send(part(Part::End(end)))).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.early_answer().await),
            Err(_) => return Err(NotKept::Away),
        }
        match tokio::time::timeout_at(until, &mut self.call).await {
            Ok(Ok(Ok(kept))) => Ok(kept),
            Ok(Ok(Err(known))) if known != Failure::Unknown => Err(known.of_unfinished()),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => self.ask(Instant::now() + self.timeout).await,
        }
    }

    /// The whole of it has gone to the queue, and no answer has come back.
    async fn ask(&mut self, until: Instant) -> Result<Kept, NotKept> {
        while Instant::now() < until {
            let request = wire::SettleRequest { message_id: self.message_id.clone() };
            match tokio::time::timeout_at(until, self.queue.settle(request)).await {
                Ok(Ok(answer)) if answer.get_ref().kept => return Ok(Kept::New),
                Ok(Ok(_)) => return Err(NotKept::Away),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        tracing::warn!("the queue does not say whether it has kept a message");
        Err(NotKept::Unknown)
    }

    /// Why the queue wants no more.
    async fn early_answer(&mut self) -> NotKept {
        match (&mut self.call).await {
            Ok(Err(reason)) => reason.of_unfinished(),
            // It cannot have kept a message that has not ended.
            Ok(Ok(_)) | Err(_) => NotKept::Away,
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // The call is given up with its request: the queue sees a stream without an end.
        self.call.abort();
    }
}

fn part(part: Part) -> wire::AcceptStreamRequest {
    wire::AcceptStreamRequest { part: Some(part) }
}
