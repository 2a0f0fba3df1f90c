//! One of the calls that may be under way: a batch, handed over until each message of it has an answer.

use std::sync::Arc;
use std::time::Duration;

use posthorn_api::spool::v1 as wire;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_service::{Channel, gather};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout_at};

use super::line::{Line, Lost};
use super::{Failure, Kept, NotKept, Waiting, failure};

/// The pause before a batch is handed over again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Octets of the largest batch after which a line is used again.
const KEPT: usize = 1 << 20;

pub(super) struct Caller {
    pub(super) queue: SpoolServiceClient<Channel>,
    pub(super) messages: usize,
    pub(super) size: usize,
    /// By which the last batch went.
    pub(super) line: Option<Line>,
}

impl Caller {
    pub(super) async fn run(mut self, waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
        loop {
            let (mut messages, mut size) = (0, 0);
            let is_full = |next: &Waiting| {
                messages += 1;
                size += next.item.content.len();
                messages >= self.messages || size >= self.size
            };
            let Some(batch) = gather(&waiting, is_full).await else { return };
            self.hand_over(batch).await;
        }
    }

    /// Until all are answered, or have no time left.
    async fn hand_over(&mut self, batch: Vec<Waiting>) {
        metrics::histogram!("posthorn_ingress_handover_batch_messages").record(batch.len() as f64);
        let mut left = give_up_late(batch);
        let mut pause = FIRST_PAUSE;
        while let Some(until) = left.iter().map(|waiting| waiting.until).max() {
            let answers = self.call(&left, until).await;
            left = settle(left, answers);
            if !left.is_empty() {
                // What the router said is no longer new.
                left.iter_mut().filter_map(|w| w.item.start.as_mut()).for_each(|start| start.routed.clear());
                metrics::counter!("posthorn_ingress_handovers_repeated_total").increment(left.len() as u64);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                left = give_up_late(left);
            }
        }
    }

    async fn call(&mut self, batch: &[Waiting], until: Instant) -> Result<Vec<wire::AcceptResult>, Failure> {
        let failed = |status| Err(failure(&status));
        match timeout_at(until, self.send(batch)).await {
            Ok(Ok(answer)) if answer.results.len() == batch.len() => Ok(answer.results),
            Ok(Ok(_)) => failed(tonic::Status::internal("the queue answered for another number of messages")),
            Ok(Err(Lost::Failed(status))) => failed(status),
            Ok(Err(Lost::Ended)) => Err(Failure::NotSent),
            Err(_) => failed(tonic::Status::deadline_exceeded("no answer in time")),
        }
    }

    /// By the line that there is, or by a new one.
    async fn send(&mut self, batch: &[Waiting]) -> Result<wire::AcceptResponse, Lost> {
        let request = || wire::AcceptRequest { items: batch.iter().map(|w| w.item.clone()).collect() };
        let mut sent = Err(Lost::Ended);
        if let Some(line) = self.line.take().filter(Line::is_young) {
            sent = line.hand_over(request()).await;
        }
        if matches!(sent, Err(Lost::Ended)) {
            sent = Line::open(&mut self.queue, request()).await;
        }
        match sent {
            // A queue of the version before this one (R9).
            Err(Lost::Failed(status)) if status.code() == tonic::Code::Unimplemented => {
                self.queue.accept(request()).await.map(tonic::Response::into_inner).map_err(Lost::Failed)
            }
            sent => {
                let (answer, line) = sent?;
                // It would keep the memory for another batch as large.
                let size: usize = batch.iter().map(|waiting| waiting.item.content.len()).sum();
                self.line = (size <= KEPT).then_some(line);
                Ok(answer)
            }
        }
    }
}

/// Gives the answers to those who wait; returns those whose message is to be handed over again.
fn settle(batch: Vec<Waiting>, answers: Result<Vec<wire::AcceptResult>, Failure>) -> Vec<Waiting> {
    let answers: Vec<_> = match answers {
        Ok(results) => results.into_iter().map(answer_of).collect(),
        Err(failure) => vec![Err(failure); batch.len()],
    };
    let settled = batch.into_iter().zip(answers).map(|(waiting, answer)| waiting.settle(answer));
    settled.flatten().collect()
}

/// Those that still have time.
fn give_up_late(batch: Vec<Waiting>) -> Vec<Waiting> {
    let now = Instant::now();
    let (late, left): (Vec<_>, Vec<_>) = batch.into_iter().partition(|waiting| waiting.until <= now);
    for waiting in late {
        let reason = if waiting.is_in_doubt() { NotKept::Unknown } else { NotKept::Away };
        waiting.answer(Err(reason));
    }
    left
}

impl Waiting {
    /// The queue may have it from an earlier call.
    fn is_in_doubt(&self) -> bool {
        self.item.start.as_ref().is_some_and(|start| start.repeated)
    }

    /// Answers if that is an answer; otherwise the message is to be handed over again.
    fn settle(mut self, answer: Result<Kept, Failure>) -> Option<Self> {
        match answer {
            Ok(kept) => self.answer(Ok(kept)),
            Err(Failure::Refused(status)) => self.answer(Err(NotKept::Refused(status))),
            Err(Failure::KeyConflict) => self.answer(Err(NotKept::KeyConflict)),
            // What holds of this call says nothing of the one before.
            Err(Failure::Full) if !self.is_in_doubt() => self.answer(Err(NotKept::Full)),
            Err(Failure::Away) if !self.is_in_doubt() => self.answer(Err(NotKept::Away)),
            Err(Failure::Full | Failure::Away | Failure::NotSent) => return Some(self),
            Err(Failure::Unknown) => {
                if let Some(start) = &mut self.item.start {
                    start.repeated = true;
                }
                return Some(self);
            }
        }
        None
    }

    fn answer(self, answer: Result<Kept, NotKept>) {
        // The session may have been cut off meanwhile; the queue has the message all the same.
        let _ = self.answer.send(answer);
    }
}

/// What an answer means.
pub(crate) fn answer_of(result: wire::AcceptResult) -> Result<Kept, Failure> {
    use wire::accept_result::Result as Wire;
    match result.result {
        Some(Wire::Accepted(_)) => Ok(Kept::New),
        Some(Wire::Repeated(repeated)) => Ok(Kept::Repeated(repeated.answer)),
        Some(Wire::KeyConflict(_)) => Err(Failure::KeyConflict),
        Some(Wire::Refused(status)) => {
            Err(status.try_into().map_or_else(|error| failure(&error), Failure::Refused))
        }
        None => Err(Failure::Unknown),
    }
}
