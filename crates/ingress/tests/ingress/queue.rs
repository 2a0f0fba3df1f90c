//! A queue that keeps what it is given in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthorn_api::error;
use posthorn_api::mail::v1 as mail;
use posthorn_api::spool::v1 as wire;
use posthorn_api::spool::v1::accept_result::Result as Answer;
use posthorn_api::spool::v1::accept_stream_request::Part;
use posthorn_api::spool::v1::spool_service_server::SpoolService;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A message that was handed over.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) start: wire::AcceptStart,
    pub(crate) content: Vec<u8>,
    /// It came in chunks.
    pub(crate) streamed: bool,
}

/// How the queue behaves.
#[derive(Debug, Clone, Default)]
pub(crate) enum Mood {
    /// It keeps all.
    #[default]
    Willing,
    /// It is away.
    Away,
    /// It says this of each message.
    Refusing(mail::Status),
    /// It has no room.
    Full,
    /// It keeps all, and so many of its answers are lost, as when it dies between its commit and its answer.
    Unheard(usize),
    /// So many streams break once they have had so many octets, or at their end; nothing of them is kept.
    Breaking { streams: usize, after: usize },
}

#[derive(Debug, Clone)]
pub(crate) struct PlayedQueue {
    kept: Arc<Mutex<Kept>>,
    mood: Arc<Mutex<Mood>>,
    /// Calls take a permit and give it back; a test that takes them all stops the queue.
    pub(crate) gate: Arc<Semaphore>,
    /// It knows calls alone, no streams of batches.
    pub(crate) old: Arc<AtomicBool>,
    /// It ends each stream of batches after an answer.
    pub(crate) curt: Arc<AtomicBool>,
    /// Chunks that may be read of streams; the same.
    pub(crate) chunks: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: Vec<Message>,
    keys: HashMap<(String, String), (Vec<u8>, Vec<u8>)>,
    /// How many messages came in each call.
    batches: Vec<usize>,
    /// Of how many recipients each message said where they go, repeated ones included.
    routed: Vec<usize>,
    begun: usize,
    cut: usize,
}

impl Default for PlayedQueue {
    fn default() -> Self {
        Self {
            kept: Arc::default(),
            mood: Arc::default(),
            gate: Arc::new(Semaphore::new(100)),
            old: Arc::default(),
            curt: Arc::default(),
            chunks: Arc::new(Semaphore::new(1_000_000)),
        }
    }
}

impl PlayedQueue {
    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.kept.lock().unwrap().messages.clone()
    }

    pub(crate) fn batches(&self) -> Vec<usize> {
        self.kept.lock().unwrap().batches.clone()
    }

    pub(crate) fn routed(&self) -> Vec<usize> {
        self.kept.lock().unwrap().routed.clone()
    }

    /// Streams that have begun.
    pub(crate) fn begun(&self) -> usize {
        self.kept.lock().unwrap().begun
    }

    /// Streams that ended without their end.
    pub(crate) fn cut(&self) -> usize {
        self.kept.lock().unwrap().cut
    }

    /// The only message there is.
    pub(crate) fn only(&self) -> Message {
        let mut messages = self.messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    fn keep(&self, message: Message) -> wire::AcceptResult {
        if let Mood::Refusing(status) = self.mood.lock().unwrap().clone() {
            return wire::AcceptResult { result: Some(Answer::Refused(status)) };
        }
        let mut kept = self.kept.lock().unwrap();
        if let Some(idempotency) = &message.start.idempotency {
            let key = (idempotency.scope.clone(), idempotency.key.clone());
            match kept.keys.get(&key) {
                Some((digest, answer)) if *digest == idempotency.digest => {
                    let repeated =
                        wire::Repeated { message_id: Default::default(), answer: answer.clone().into() };
                    return wire::AcceptResult { result: Some(Answer::Repeated(repeated)) };
                }
                Some(_) => {
                    return wire::AcceptResult { result: Some(Answer::KeyConflict(wire::KeyConflict {})) };
                }
                None => {
                    kept.keys.insert(key, (idempotency.digest.to_vec(), idempotency.answer.to_vec()));
                }
            }
        }
        let is_known = |known: &Message| known.start.message_id == message.start.message_id;
        if !kept.messages.iter().any(is_known) {
            kept.messages.push(message);
        }
        wire::AcceptResult { result: Some(Answer::Accepted(wire::Accepted {})) }
    }

    fn check_mood(&self) -> Result<(), Status> {
        match *self.mood.lock().unwrap() {
            Mood::Away => Err(error::unavailable("STORE_AWAY", "the spool is away", Duration::from_secs(5))),
            Mood::Full => Err(Status::resource_exhausted("the spool is full")),
            Mood::Willing | Mood::Refusing(_) | Mood::Unheard(_) | Mood::Breaking { .. } => Ok(()),
        }
    }

    /// Whether a stream goes on that has had so many octets.
    fn holds(&self, octets: usize) -> Result<(), Status> {
        match &mut *self.mood.lock().unwrap() {
            Mood::Breaking { streams, after } if *streams > 0 && octets >= *after => {
                *streams -= 1;
                Err(Status::unavailable("connection reset"))
            }
            _ => Ok(()),
        }
    }

    /// Whether this answer arrives.
    fn is_heard(&self) -> Result<(), Status> {
        match &mut *self.mood.lock().unwrap() {
            Mood::Unheard(left) if *left > 0 => {
                *left -= 1;
                // As the caller's transport says it.
                Err(Status::unavailable("connection reset"))
            }
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl SpoolService for PlayedQueue {
    async fn accept(
        &self,
        request: Request<wire::AcceptRequest>,
    ) -> Result<Response<wire::AcceptResponse>, Status> {
        let items = request.into_inner().items;
        {
            let mut kept = self.kept.lock().unwrap();
            kept.batches.push(items.len());
            kept.routed.extend(items.iter().map(|item| item.start.as_ref().unwrap().routed.len()));
        }
        let _permit = self.gate.acquire().await.unwrap();
        self.check_mood()?;
        let keep = |item: wire::AcceptItem| {
            let start = item.start.unwrap();
            self.keep(Message { start, content: item.content.to_vec(), streamed: false })
        };
        let results = items.into_iter().map(keep).collect();
        self.is_heard()?;
        Ok(Response::new(wire::AcceptResponse { results }))
    }

    type AcceptEachStream = ReceiverStream<Result<wire::AcceptResponse, Status>>;

    async fn accept_each(
        &self,
        request: Request<Streaming<wire::AcceptRequest>>,
    ) -> Result<Response<Self::AcceptEachStream>, Status> {
        if self.old.load(Ordering::SeqCst) {
            return Err(Status::unimplemented("an old queue"));
        }
        let (queue, mut requests) = (self.clone(), request.into_inner());
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let answer = tokio::select! {
                    answer = queue.accept(Request::new(request)) => answer.map(Response::into_inner),
                    () = answers.closed() => return,
                };
                let is_last = answer.is_err() || queue.curt.load(Ordering::SeqCst);
                if answers.send(answer).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn accept_stream(
        &self,
        request: Request<Streaming<wire::AcceptStreamRequest>>,
    ) -> Result<Response<wire::AcceptStreamResponse>, Status> {
        self.check_mood()?;
        let mut parts = request.into_inner();
        let mut message = None;
        loop {
            let part = match parts.message().await {
                Ok(Some(part)) => part.part.unwrap(),
                Ok(None) | Err(_) => {
                    self.kept.lock().unwrap().cut += 1;
                    return Err(Status::aborted("the stream was cut"));
                }
            };
            match part {
                Part::Start(start) => {
                    self.kept.lock().unwrap().begun += 1;
                    message = Some(Message { start, content: Vec::new(), streamed: true });
                }
                Part::Chunk(chunk) => {
                    self.chunks.acquire().await.unwrap().forget();
                    let content = &mut message.as_mut().unwrap().content;
                    content.extend_from_slice(&chunk);
                    self.holds(content.len())?;
                }
                Part::End(end) => {
                    self.holds(usize::MAX)?;
                    let mut message = message.unwrap();
                    assert_eq!(end.size, message.content.len() as u64);
                    if end.body != 0 {
                        message.start.envelope.as_mut().unwrap().body = end.body;
                    }
                    if let Some(idempotency) = &mut message.start.idempotency
                        && !end.digest.is_empty()
                    {
                        idempotency.digest = end.digest;
                    }
                    let result = Some(self.keep(message));
                    self.is_heard()?;
                    return Ok(Response::new(wire::AcceptStreamResponse { result }));
                }
            }
        }
    }

    type ReadContentStream = tokio_stream::Empty<Result<wire::ReadContentResponse, Status>>;

    async fn read_content(
        &self,
        _: Request<wire::ReadContentRequest>,
    ) -> Result<Response<Self::ReadContentStream>, Status> {
        Err(Status::unimplemented("ingress has no business here"))
    }

    async fn settle(
        &self,
        request: Request<wire::SettleRequest>,
    ) -> Result<Response<wire::SettleResponse>, Status> {
        self.is_heard()?;
        let id = request.into_inner().message_id;
        let kept = self.messages().iter().any(|message| message.start.message_id == id);
        Ok(Response::new(wire::SettleResponse { kept }))
    }

    async fn find_key(
        &self,
        request: Request<wire::FindKeyRequest>,
    ) -> Result<Response<wire::FindKeyResponse>, Status> {
        use wire::find_key_response::Result as KeyUse;
        self.check_mood()?;
        let wire::FindKeyRequest { scope, key, digest } = request.into_inner();
        let kept = self.kept.lock().unwrap();
        let result = kept.keys.get(&(scope, key)).map(|(first, answer)| {
            if *first == digest {
                let answer = answer.clone().into();
                KeyUse::Repeated(wire::Repeated { message_id: Default::default(), answer })
            } else {
                KeyUse::KeyConflict(wire::KeyConflict {})
            }
        });
        Ok(Response::new(wire::FindKeyResponse { result }))
    }

    async fn held(&self, _: Request<wire::HeldRequest>) -> Result<Response<wire::HeldResponse>, Status> {
        Err(Status::unimplemented("ingress has no business here"))
    }
}
