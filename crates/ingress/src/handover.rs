//! Handing messages to the queue.
//!
//! Small ones go together: a few calls are under way at most, and whatever arrives meanwhile goes into the next one
//! (R7). Nothing waits for a timer: a message that finds a call free leaves at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthorn_api::spool::v1 as wire;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_mail::{EnhancedStatus, MessageId, Status};
use posthorn_service::Channel;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::MESSAGE_LIMIT;
use crate::config::{Handover as Settings, octets};
use crate::upload::Upload;

/// The queue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Durable, under the id that it came with.
    New,
    /// Its idempotency key was known: nothing was stored, this was answered the first time.
    Repeated(Bytes),
}

/// The queue does not have it, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// It said why.
    Refused(Status),
    /// It was not asked: the message has no From.
    NoFrom,
    /// The idempotency key came with another request before.
    KeyConflict,
    /// It has no room.
    Full,
    /// It did not answer.
    Away,
}

impl NotKept {
    /// What an SMTP client is told.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Refused(status) => status,
            Self::NoFrom => Status::new(554, EnhancedStatus::new(5, 6, 0), "The message has no From"),
            Self::Full => {
                Status::new(452, EnhancedStatus::new(4, 3, 1), "The queue is full, try again later")
            }
            // SMTP has no idempotency keys; should one conflict all the same, it is no fault of the client.
            Self::Away | Self::KeyConflict => Status::new(
                451,
                EnhancedStatus::new(4, 3, 0),
                "The message could not be queued, try again later",
            ),
        }
    }
}

/// The way to the queue. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handover {
    calls: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    queue: SpoolServiceClient<Channel>,
    timeout: Duration,
}

/// A message that waits for a call.
#[derive(Debug)]
struct Waiting {
    item: wire::AcceptItem,
    answer: oneshot::Sender<Result<Kept, NotKept>>,
    /// Its part of what may wait; given back when it is answered.
    room: OwnedSemaphorePermit,
}

impl Handover {
    /// Starts the tasks that call the queue; they end with the last clone. Must be called within a tokio runtime.
    pub(crate) fn start(queue: Channel, settings: &Settings) -> Self {
        let queue = SpoolServiceClient::new(queue)
            .max_encoding_message_size(MESSAGE_LIMIT)
            .max_decoding_message_size(MESSAGE_LIMIT);
        let (calls, waiting) = mpsc::channel(settings.batch_messages.max(1));
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..settings.calls.max(1) {
            let caller = Caller {
                queue: queue.clone(),
                timeout: settings.timeout,
                messages: settings.batch_messages.max(1),
                size: octets(settings.batch_size),
            };
            tokio::spawn(caller.run(Arc::clone(&waiting)));
        }
        let room = Arc::new(Semaphore::new(octets(settings.waiting).min(Semaphore::MAX_PERMITS)));
        Self { calls, room, queue, timeout: settings.timeout }
    }

    /// Hands over a message whole; returns when the queue has answered.
    pub(crate) async fn accept(&self, start: wire::AcceptStart, content: Bytes) -> Result<Kept, NotKept> {
        // An empty message takes room too. No setting makes a message larger than the room's 4 GiB of permits.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX).max(1);
        let room = tokio::time::timeout(self.timeout, Arc::clone(&self.room).acquire_many_owned(size));
        let Ok(Ok(room)) = room.await else { return Err(NotKept::Full) };
        let (answer, answered) = oneshot::channel();
        let item = wire::AcceptItem { start: Some(start), content };
        if self.calls.send(Waiting { item, answer, room }).await.is_err() {
            return Err(NotKept::Away);
        }
        answered.await.unwrap_or(Err(NotKept::Away))
    }

    /// Begins to hand over a large message while it still comes in.
    pub(crate) fn upload(&self, start: wire::AcceptStart) -> Upload {
        Upload::start(self.queue.clone(), self.timeout, start)
    }
}

/// One of the calls that may be under way.
struct Caller {
    queue: SpoolServiceClient<Channel>,
    timeout: Duration,
    messages: usize,
    size: usize,
}

impl Caller {
    async fn run(mut self, waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
        while let Some(batch) = self.gather(&waiting).await {
            self.call(batch).await;
        }
    }

    /// The next message, and all that wait behind it. The lock is held while there is none: the other callers that
    /// are free then wait for it, and the first message takes just one of them.
    async fn gather(&self, waiting: &Mutex<mpsc::Receiver<Waiting>>) -> Option<Vec<Waiting>> {
        let mut waiting = waiting.lock().await;
        let first = waiting.recv().await?;
        let mut size = first.item.content.len();
        let mut batch = vec![first];
        while batch.len() < self.messages && size < self.size {
            let Ok(next) = waiting.try_recv() else { break };
            size += next.item.content.len();
            batch.push(next);
        }
        Some(batch)
    }

    async fn call(&mut self, batch: Vec<Waiting>) {
        metrics::histogram!("posthorn_ingress_handover_batch_messages").record(batch.len() as f64);
        let (items, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|w| (w.item, (w.answer, w.room))).unzip();
        let asked = items.len();
        let call = self.queue.accept(wire::AcceptRequest { items });
        let called = tokio::time::timeout(self.timeout, call).await;
        let results = match called {
            Ok(Ok(response)) if response.get_ref().results.len() == asked => {
                response.into_inner().results.into_iter().map(answer_of).collect()
            }
            Ok(Ok(_)) => {
                tracing::error!("the queue answered for another number of messages");
                vec![Err(NotKept::Away); asked]
            }
            Ok(Err(status)) => vec![Err(not_kept(&status)); asked],
            Err(_) => vec![Err(not_kept(&tonic::Status::deadline_exceeded("no answer in time"))); asked],
        };
        for ((answer, room), result) in answers.into_iter().zip(results) {
            // The session may have been cut off meanwhile; the queue has the message all the same.
            let _ = answer.send(result);
            drop(room);
        }
    }
}

/// What an answer means.
pub(crate) fn answer_of(result: wire::AcceptResult) -> Result<Kept, NotKept> {
    use wire::accept_result::Result as Wire;
    match result.result {
        Some(Wire::Accepted(_)) => Ok(Kept::New),
        Some(Wire::Repeated(repeated)) => Ok(Kept::Repeated(repeated.answer)),
        Some(Wire::KeyConflict(_)) => Err(NotKept::KeyConflict),
        Some(Wire::Refused(status)) => {
            Err(status.try_into().map_or_else(|error| not_kept(&error), NotKept::Refused))
        }
        None => Err(not_kept(&tonic::Status::internal("the queue answered nothing for a message"))),
    }
}

/// What a failed call means for its messages. Logged here, once a call.
pub(crate) fn not_kept(status: &tonic::Status) -> NotKept {
    tracing::warn!(code = ?status.code(), reason = status.message(), "the queue takes no messages");
    metrics::counter!("posthorn_ingress_queue_failures_total").increment(1);
    if status.code() == tonic::Code::ResourceExhausted { NotKept::Full } else { NotKept::Away }
}

/// The reply to a message that the queue has.
pub(crate) fn queued_as(id: MessageId) -> Status {
    Status::new(250, EnhancedStatus::new(2, 0, 0), format!("Ok: queued as {id}"))
}
