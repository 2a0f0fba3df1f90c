//! Handing messages to the queue.
//!
//! Small ones go together: a few calls are under way at most, and whatever arrives meanwhile goes into the next one
//! (R7). Nothing waits for a timer: a message that finds a call free leaves at once.
//!
//! A message whose answer is lost may be kept or not. It is handed over again under the same id, by which the queue
//! knows it; only when that comes to nothing, too, is it [`NotKept::Unknown`].

mod call;
mod failure;
mod line;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthorn_api::mail::v1::Body;
use posthorn_api::spool::v1 as wire;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_mail::{EnhancedStatus, MessageId, Status};
use posthorn_service::{Channel, within};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::MESSAGE_LIMIT;
use crate::config::{Handover as Settings, octets};
use crate::upload::Upload;

use call::Caller;
pub(crate) use call::answer_of;
pub(crate) use failure::{Failure, failure};

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
    /// It has no room, or there is none on the way to it.
    Full,
    /// It is away, or says that its store is.
    Away,
    /// It was given the message and never said what became of it.
    Unknown,
}

impl NotKept {
    /// What an SMTP client is told; `None`: neither yes nor no would be true, so the connection is closed in silence,
    /// after which a client knows as little as we do (RFC 5321 §4.5.4.1: it tries again).
    pub(crate) fn status(self) -> Option<Status> {
        Some(match self {
            Self::Unknown => return None,
            Self::Refused(status) => status,
            Self::NoFrom => Status::new(554, EnhancedStatus::new(5, 6, 0), "The message has no From"),
            Self::Full => {
                Status::new(452, EnhancedStatus::new(4, 3, 1), "There is no room for it now, try again later")
            }
            // SMTP has no idempotency keys; should one conflict all the same, it is no fault of the client.
            Self::Away | Self::KeyConflict => Status::new(
                451,
                EnhancedStatus::new(4, 3, 0),
                "The message could not be queued, try again later",
            ),
        })
    }
}

/// The way to the queue. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handover {
    calls: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    pub(crate) queue: SpoolServiceClient<Channel>,
    /// How long the queue is asked.
    pub(crate) timeout: Duration,
}

/// A message that waits for a call.
#[derive(Debug)]
struct Waiting {
    item: wire::AcceptItem,
    answer: oneshot::Sender<Result<Kept, NotKept>>,
    /// Until when it is handed over again.
    until: Instant,
    /// Its part of what may wait; given back when it is answered.
    _room: OwnedSemaphorePermit,
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
                messages: settings.batch_messages.max(1),
                size: octets(settings.batch_size),
                line: None,
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
        let until = Instant::now() + self.timeout;
        let room = tokio::time::timeout_at(until, Arc::clone(&self.room).acquire_many_owned(size));
        let Ok(Ok(room)) = room.await else { return Err(NotKept::Full) };
        let (answer, answered) = oneshot::channel();
        let item = wire::AcceptItem { start: Some(start), content };
        if self.calls.send(Waiting { item, answer, until, _room: room }).await.is_err() {
            return Err(NotKept::Away);
        }
        answered.await.unwrap_or(Err(NotKept::Unknown))
    }

    /// What was answered when this idempotency key came first; `None`: it is new.
    pub(crate) async fn first_answer(&self, key: wire::FindKeyRequest) -> Result<Option<Bytes>, NotKept> {
        use wire::find_key_response::Result as KeyUse;
        let mut queue = self.queue.clone();
        match within(self.timeout, queue.find_key(key)).await {
            Ok(found) => match found.into_inner().result {
                Some(KeyUse::Repeated(first)) => Ok(Some(first.answer)),
                Some(KeyUse::KeyConflict(_)) => Err(NotKept::KeyConflict),
                None => Ok(None),
            },
            // A queue of the version before this one (R9).
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
            Err(status) => Err(failure(&status).of_unfinished()),
        }
    }

    /// Begins to hand over a large message while it still comes in.
    pub(crate) fn upload(&self, start: wire::AcceptStart) -> Upload {
        Upload::start(self.clone(), start)
    }
}

/// Puts in what is known only at the end of a message: what its content holds, and the digest of the request, where it
/// was not known before.
pub(crate) fn know_end(start: &mut wire::AcceptStart, body: Body, digest: Bytes) {
    if let Some(envelope) = &mut start.envelope {
        envelope.body = body.into();
    }
    if let Some(idempotency) = start.idempotency.as_mut().filter(|i| i.digest.is_empty()) {
        idempotency.digest = digest;
    }
}

/// The reply to a message that the queue has.
pub(crate) fn queued_as(id: MessageId) -> Status {
    Status::new(250, EnhancedStatus::new(2, 0, 0), format!("Ok: queued as {id}"))
}
