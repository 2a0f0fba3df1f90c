//! Taking messages over: natural batching. What arrives while a transaction is under way goes into the next one (R7).

mod ahead;
mod store;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use posthorn_api::mail::v1::Origin;
use posthorn_mail::{EnhancedStatus, Envelope, MessageId, Status};
use posthorn_service::gather;
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::dispatch;
use crate::error::Unavailable;
use crate::hub::Hub;
use crate::level::Level;
use crate::outcome::route::Routed;
use crate::spool::{self, KnownKey, NewKey};

use ahead::Ahead;
pub(crate) use store::insert_own;
use store::{fresh_item, store};

/// A message that somebody hands in.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) id: MessageId,
    pub(crate) envelope: Envelope,
    pub(crate) origin: Origin,
    pub(crate) received_at: OffsetDateTime,
    pub(crate) traceparent: String,
    pub(crate) key: Option<NewKey>,
    pub(crate) content: Content,
    /// It was handed in before, and the answer lost.
    pub(crate) repeated: bool,
    /// What the router has just said of all its recipients; empty: it is to be asked.
    pub(crate) routed: Vec<Routed>,
}

impl Incoming {
    /// One statement takes it in: nothing has to be looked up before or after.
    fn is_plain(&self) -> bool {
        self.key.is_none() && !self.repeated && matches!(self.content, Content::Here(_))
    }
}

/// Where the bytes of a message are.
#[derive(Debug)]
pub(crate) enum Content {
    Here(Bytes),
    /// In the store already, counted as released; so many bytes.
    Uploaded(u64),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Uploaded(size) => *size,
        }
    }
}

/// What became of an incoming message.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Durable.
    Accepted,
    /// Its idempotency key was used for the same before.
    Repeated(KnownKey),
    /// Its idempotency key was used for something else.
    KeyConflict,
    /// Not taken.
    Refused(Status),
    /// Kept or not, nobody can say.
    Unknown,
}

struct Job {
    incoming: Incoming,
    answer: oneshot::Sender<Result<Answer, Unavailable>>,
}

/// The way into the spool; cheap to clone.
#[derive(Clone)]
pub(crate) struct Accept {
    jobs: mpsc::Sender<Job>,
    level: Arc<Level>,
}

impl Accept {
    /// Hands messages in and waits until they are durable; an answer each, in order.
    pub(crate) async fn accept(&self, incoming: Vec<Incoming>) -> Result<Vec<Answer>, Unavailable> {
        if self.level.is_full() {
            return Err(Unavailable::SpoolFull);
        }
        let permits = self.jobs.try_reserve_many(incoming.len()).map_err(|_| Unavailable::Busy)?;
        let repeated: Vec<bool> = incoming.iter().map(|incoming| incoming.repeated).collect();
        let mut answers = Vec::with_capacity(incoming.len());
        for (permit, incoming) in permits.zip(incoming) {
            let (answer, receiver) = oneshot::channel();
            permit.send(Job { incoming, answer });
            answers.push(receiver);
        }
        let mut given = Vec::with_capacity(answers.len());
        for answer in answers {
            given.push(answer.await.unwrap_or(Err(Unavailable::Stopping)));
        }
        // What was handed in before may have been kept then, whatever became of it now.
        let answer = |(given, repeated): (Result<Answer, Unavailable>, bool)| match given {
            Ok(answer) => answer,
            Err(error) if repeated || error.is_in_doubt() => Answer::Unknown,
            Err(_) => Answer::Refused(try_later()),
        };
        // The call fails as a whole only when nothing of it was kept.
        let worst = given.iter().filter_map(|answer| answer.as_ref().err()).max_by_key(|e| e.is_in_doubt());
        match worst {
            Some(error) if given.iter().all(Result::is_err) => Err(error.clone()),
            _ => Ok(given.into_iter().zip(repeated).map(answer).collect()),
        }
    }
}

fn try_later() -> Status {
    Status::new(451, EnhancedStatus::new(4, 3, 0), "the message could not be stored, try again later")
}

/// Starts the writers; they end when every [`Accept`] is dropped and all that waits is written.
pub(crate) fn start(hub: &Arc<Hub>, tasks: &mut JoinSet<()>) -> Accept {
    let config = &hub.config.accept;
    let (sender, receiver) = mpsc::channel(config.max_waiting);
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..config.writers {
        tasks.spawn(write_all(hub.clone(), receiver.clone()));
    }
    Accept { jobs: sender, level: hub.level.clone() }
}

async fn write_all(hub: Arc<Hub>, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    let most = hub.config.accept.max_batch;
    let most_bytes = hub.config.accept.max_batch_bytes.as_u64();
    loop {
        let (mut messages, mut bytes) = (0, 0);
        let is_full = |job: &Job| {
            messages += 1;
            bytes += job.incoming.content.size();
            messages >= most || bytes >= most_bytes
        };
        let Some(batch) = gather(&jobs, is_full).await else { return };
        let span = tracing::info_span!("queue.accept", messages = batch.len());
        for job in &batch {
            posthorn_service::trace::link(&span, &job.incoming.traceparent);
        }
        write(&hub, batch).instrument(span).await;
    }
}

async fn write(hub: &Hub, mut batch: Vec<Job>) {
    // Who no longer waits for the answer hands the message in again: it must not come in behind itself.
    batch.retain(|job| !job.answer.is_closed());
    let started = Instant::now();
    let (incoming, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|job| (job.incoming, job.answer)).unzip();
    let ahead = Ahead::take(hub, &incoming);
    let mut stored = Vec::new();
    let given = match store(hub, &incoming).await {
        Ok((given, new)) => {
            stored = new;
            given.into_iter().map(Ok).collect()
        }
        Err(error) if spool::is_away(&error) || incoming.len() == 1 => {
            vec![Err(refuse(&error)); incoming.len()]
        }
        // One of them is to blame: the others do not suffer for it.
        Err(_) => {
            let mut given = Vec::with_capacity(incoming.len());
            for one in incoming.chunks(1) {
                let answer = store(hub, one).await.map_err(|error| refuse(&error));
                given.push(answer.map(|(mut answers, new)| {
                    stored.extend(new);
                    answers.remove(0)
                }));
            }
            given
        }
    };
    metrics::histogram!("posthorn_queue_accept_seconds").record(started.elapsed());
    let left = ahead.kept(stored);
    // Who waits for a message is woken before who has handed it in, and nobody waits for the schedule.
    tokio::task::yield_now().await;
    for (answer, given) in answers.into_iter().zip(given) {
        // A caller that has gone will ask again, with the same id or key.
        let _ = answer.send(given);
    }
    dispatch::pass_on(hub, &left, hub.now()).await;
}

fn refuse(error: &sqlx::Error) -> Unavailable {
    tracing::warn!(%error, "messages could not be stored");
    Unavailable::transaction(error)
}
