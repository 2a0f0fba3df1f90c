//! Handing a large message to the queue in chunks, while it still comes in.
//!
//! The replica that a stream goes to may leave or die. While what has been sent of a message is little, it is kept: the
//! message is then begun again at another replica, or handed over whole where all of it is there.

use std::time::Duration;

use bytes::Bytes;
use posthorn_api::mail::v1::Body;
use posthorn_api::spool::v1 as wire;
use posthorn_api::spool::v1::accept_stream_request::Part;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_service::Channel;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use crate::handover::{Failure, Handover, Kept, NotKept, answer_of, failure, know_end};

/// Chunks that may be on their way to the queue; when it is slow, the client waits.
const IN_FLIGHT: usize = 2;

/// How long after a question that was not answered it is asked again, and a stream that broke is begun again.
const PAUSE: Duration = Duration::from_millis(200);

/// Octets up to which what was sent is kept: more than goes out (a stream's window, and what is in flight) before it is
/// heard that a replica has left.
const KEPT: usize = 3 << 20;

/// A message on its way. Dropped before its end, it is cut, and the queue forgets it.
#[derive(Debug)]
pub(crate) struct Upload {
    handover: Handover,
    start: wire::AcceptStart,
    stream: Stream,
    size: u64,
    /// All that was sent, while it is little.
    sent: Option<Vec<Bytes>>,
}

impl Upload {
    pub(crate) fn start(handover: Handover, start: wire::AcceptStart) -> Self {
        let stream = Stream::open(handover.queue.clone(), start.clone());
        Self { handover, start, stream, size: 0, sent: Some(Vec::new()) }
    }

    /// Octets that are kept to begin again.
    pub(crate) fn kept(&self) -> usize {
        self.sent.iter().flatten().map(Bytes::len).sum()
    }

    /// Gives up what is kept: if the stream breaks now, the message is not taken.
    pub(crate) fn give_up_kept(&mut self) {
        self.sent = None;
    }

    /// Sends the next chunk, as soon as there is room for it. An error says that nothing more is wanted: the queue
    /// has answered already.
    pub(crate) async fn send(&mut self, chunk: Bytes) -> Result<(), NotKept> {
        self.size += chunk.len() as u64;
        if self.kept() + chunk.len() > KEPT {
            self.give_up_kept();
        }
        if let Some(sent) = &mut self.sent {
            sent.push(chunk.clone());
        }
        let until = Instant::now() + self.handover.timeout;
        let mut sending = self.stream.send(Part::Chunk(chunk), until).await;
        while let Err(failure) = sending {
            self.clear_way(failure, until).await?;
            self.stream = Stream::open(self.handover.queue.clone(), self.start.clone());
            sending = self.send_again(until).await;
        }
        Ok(())
    }

    /// Says that this was all, what the content was found to hold, and the digest of the request if an idempotency
    /// key wants one; returns the queue's answer. When that is lost, the queue is asked what became of the message.
    pub(crate) async fn finish(mut self, body: Body, digest: Bytes) -> Result<Kept, NotKept> {
        let until = Instant::now() + self.handover.timeout;
        let end = wire::AcceptEnd {
            size: self.size,
            answer: Bytes::new(),
            body: body.into(),
            digest: digest.clone(),
        };
        let ended = self.stream.send(Part::End(end), until).await;
        let is_ended = ended.is_ok();
        let answer = match ended {
            Ok(()) => self.stream.answer(until).await,
            Err(early) => Err(early),
        };
        match answer {
            Ok(kept) => return Ok(kept),
            Err(Failure::Unknown) if is_ended => {
                match self.settle(Instant::now() + self.handover.timeout).await {
                    Some(true) => return Ok(Kept::New),
                    Some(false) => {}
                    None => {
                        tracing::warn!("the queue does not say whether it has kept a message");
                        return Err(NotKept::Unknown);
                    }
                }
            }
            Err(failure) => self.clear_way(failure, until).await?,
        }
        let content = self.sent.take().ok_or(NotKept::Away)?.concat();
        know_end(&mut self.start, body, digest);
        self.handover.accept(self.start, content.into()).await
    }

    /// After a stream that broke before its end was heard: returns when nothing of it is in the way of another, or says
    /// that there is to be none.
    async fn clear_way(&mut self, failure: Failure, until: Instant) -> Result<(), NotKept> {
        let is_broken = matches!(failure, Failure::NotSent | Failure::Unknown);
        if !is_broken || self.sent.is_none() || Instant::now() + PAUSE > until {
            return Err(failure.of_unfinished());
        }
        metrics::counter!("posthorn_ingress_handovers_repeated_total").increment(1);
        tokio::time::sleep(PAUSE).await;
        if failure == Failure::Unknown && self.settle(until).await.is_none() {
            return Err(NotKept::Away);
        }
        Ok(())
    }

    async fn send_again(&mut self, until: Instant) -> Result<(), Failure> {
        for chunk in self.sent.iter().flatten() {
            self.stream.send(Part::Chunk(chunk.clone()), until).await?;
        }
        Ok(())
    }

    /// Whether the queue has kept the message, which, if not, it never will by what it was sent; `None` when it does
    /// not say.
    async fn settle(&mut self, until: Instant) -> Option<bool> {
        while Instant::now() < until {
            let request = wire::SettleRequest { message_id: self.start.message_id.clone() };
            match timeout_at(until, self.handover.queue.settle(request)).await {
                Ok(Ok(answer)) => return Some(answer.get_ref().kept),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        None
    }
}

/// A call that the parts of a message go out by.
#[derive(Debug)]
struct Stream {
    parts: mpsc::Sender<wire::AcceptStreamRequest>,
    call: JoinHandle<Result<Kept, Failure>>,
}

impl Stream {
    fn open(mut queue: SpoolServiceClient<Channel>, start: wire::AcceptStart) -> Self {
        let (parts, sent) = mpsc::channel(IN_FLIGHT);
        parts.try_send(part(Part::Start(start))).expect("a new channel has room");
        let call = tokio::spawn(async move {
            match queue.accept_stream(ReceiverStream::new(sent)).await {
                Ok(response) => match response.into_inner().result {
                    Some(result) => answer_of(result),
                    None => Err(Failure::Unknown),
                },
                Err(status) => Err(failure(&status)),
            }
        });
        Self { parts, call }
    }

    /// Sends a part, or says why the queue wants no more.
    async fn send(&mut self, next: Part, until: Instant) -> Result<(), Failure> {
        match timeout_at(until, self.parts.send(part(next))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => match (&mut self.call).await {
                Ok(Err(reason)) => Err(reason),
                // It cannot have kept a message that has not ended.
                Ok(Ok(_)) | Err(_) => Err(Failure::Away),
            },
            Err(_) => Err(failure(&tonic::Status::deadline_exceeded("no part was taken in time"))),
        }
    }

    /// The answer to the whole.
    async fn answer(&mut self, until: Instant) -> Result<Kept, Failure> {
        match timeout_at(until, &mut self.call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Failure::Unknown),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The call is given up with its request: the queue sees a stream without an end.
        self.call.abort();
    }
}

fn part(part: Part) -> wire::AcceptStreamRequest {
    wire::AcceptStreamRequest { part: Some(part) }
}
