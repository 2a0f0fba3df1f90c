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
use tokio_stream::wrappers::ReceiverStream;

use crate::handover::{Kept, NotKept, answer_of, not_kept};

/// Chunks that may be on their way to the queue; when it is slow, the client waits.
const IN_FLIGHT: usize = 2;

/// A message on its way. Dropped before its end, it is cut, and the queue forgets it.
#[derive(Debug)]
pub(crate) struct Upload {
    parts: mpsc::Sender<wire::AcceptStreamRequest>,
    call: JoinHandle<Result<Kept, NotKept>>,
    size: u64,
    timeout: Duration,
}

impl Upload {
    pub(crate) fn start(
        mut queue: SpoolServiceClient<Channel>,
        timeout: Duration,
        start: wire::AcceptStart,
    ) -> Self {
        let (parts, sent) = mpsc::channel(IN_FLIGHT);
        parts.try_send(part(Part::Start(start))).expect("a new channel has room");
        let call = tokio::spawn(async move {
            match queue.accept_stream(ReceiverStream::new(sent)).await {
                Ok(response) => match response.into_inner().result {
                    Some(result) => answer_of(result),
                    None => Err(not_kept(&tonic::Status::internal("the queue answered nothing"))),
                },
                Err(status) => Err(not_kept(&status)),
            }
        });
        Self { parts, call, size: 0, timeout }
    }

    /// Sends the next chunk, as soon as there is room for it. An error says that nothing more is wanted: the queue
    /// has answered already.
    pub(crate) async fn send(&mut self, chunk: Bytes) -> Result<(), NotKept> {
        self.size += chunk.len() as u64;
        match tokio::time::timeout(self.timeout, self.parts.send(part(Part::Chunk(chunk)))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.early_answer().await),
            Err(_) => Err(not_kept(&tonic::Status::deadline_exceeded("no chunk was taken in time"))),
        }
    }

    /// Says that this was all, what the content was found to hold, and the digest of the request if an idempotency
    /// key wants one; returns the queue's answer.
    pub(crate) async fn finish(mut self, body: Body, digest: Bytes) -> Result<Kept, NotKept> {
        let end = wire::AcceptEnd { size: self.size, answer: Bytes::new(), body: body.into(), digest };
        let ended = async {
            // If the stream is gone, the answer says why.
            let _ = self.parts.send(part(Part::End(end))).await;
            (&mut self.call).await.unwrap_or(Err(NotKept::Away))
        };
        tokio::time::timeout(self.timeout, ended)
            .await
            .unwrap_or_else(|_| Err(not_kept(&tonic::Status::deadline_exceeded("no answer in time"))))
    }

    /// Why the queue wants no more.
    async fn early_answer(&mut self) -> NotKept {
        match (&mut self.call).await {
            Ok(Err(reason)) => reason,
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
