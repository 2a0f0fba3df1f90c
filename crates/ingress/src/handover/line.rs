//! A stream to a replica of the queue, by which one batch goes after the other. That costs less than a call for each, and
//! a message that comes alone waits for all of it.

use std::time::Duration;

use posthorn_api::spool::v1 as wire;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_service::Channel;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// How long one is used: the next may go to another replica.
const LIFE: Duration = Duration::from_secs(10);

/// Nothing is under way by it. Dropped, it is ended.
#[derive(Debug)]
pub(super) struct Line {
    requests: mpsc::Sender<wire::AcceptRequest>,
    answers: Streaming<wire::AcceptResponse>,
    until: Instant,
}

/// Why there is no answer, nor a line any more.
#[derive(Debug)]
pub(super) enum Lost {
    /// It has ended, and the queue has not taken the batch.
    Ended,
    /// As after a call that failed.
    Failed(Status),
}

impl Line {
    /// Opens one by handing over a batch.
    pub(super) async fn open(
        queue: &mut SpoolServiceClient<Channel>,
        batch: wire::AcceptRequest,
    ) -> Result<(wire::AcceptResponse, Self), Lost> {
        let (requests, waiting) = mpsc::channel(1);
        let until = Instant::now() + LIFE;
        requests.try_send(batch).expect("there is room for one");
        let answers = queue.accept_each(ReceiverStream::new(waiting)).await.map_err(Lost::Failed)?;
        Self { requests, answers: answers.into_inner(), until }.answer().await
    }

    /// Hands over another batch.
    pub(super) async fn hand_over(
        self,
        batch: wire::AcceptRequest,
    ) -> Result<(wire::AcceptResponse, Self), Lost> {
        // Nothing takes it any more, so it was not sent.
        self.requests.send(batch).await.map_err(|_| Lost::Ended)?;
        self.answer().await
    }

    async fn answer(mut self) -> Result<(wire::AcceptResponse, Self), Lost> {
        let answer = self.answers.message().await.map_err(Lost::Failed)?;
        Ok((answer.ok_or(Lost::Ended)?, self))
    }

    pub(super) fn is_young(&self) -> bool {
        Instant::now() < self.until
    }
}
