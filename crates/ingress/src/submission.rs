//! Programs hand messages in: `SubmissionService`.

use std::time::Duration;

use bytes::Bytes;
use posthorn_api::error::{exhausted, invalid, status, unavailable};
use posthorn_api::submission::v1 as wire;
use posthorn_api::submission::v1::submission_service_server::SubmissionService;
use posthorn_api::submission::v1::submit_request::Content;
use posthorn_api::submission::v1::submit_stream_request::Part;
use posthorn_service::Networks;
use sha2::Digest as _;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::admission::Admission;
use crate::budget::Budget;
use crate::compose::compose;
use crate::handover::{Handover, NotKept};
use crate::incoming::Rules;

mod caller;
mod doorman;
mod draft;
mod intake;

use caller::Caller;
pub(crate) use doorman::Doorman;
use doorman::Taken;
use draft::{Draft, Form};
use intake::Begun;

/// When a caller that was told to try again should.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How much of a raw message is looked at at once.
const PIECE: usize = 256 << 10;

/// The service.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) admission: Admission,
    pub(crate) handover: Handover,
    pub(crate) trusted: Networks,
    pub(crate) rules: Rules,
    /// What requests may take of the memory, together with SMTP sessions.
    pub(crate) budget: Budget,
    /// Octets of a message.
    pub(crate) message_size: u64,
    /// Recipients of a message.
    pub(crate) recipients: usize,
    /// For the next part of a stream.
    pub(crate) part_timeout: Duration,
    /// For all of it.
    pub(crate) stream_timeout: Duration,
}

#[tonic::async_trait]
impl SubmissionService for Submission {
    async fn submit(
        &self,
        request: Request<wire::SubmitRequest>,
    ) -> Result<Response<wire::SubmitResponse>, Status> {
        let (caller, _) = let_in(&request)?;
        let request = request.into_inner();
        let envelope = request.envelope.unwrap_or_default();
        let (content, draft) = match request.content {
            None => return Err(invalid("content", "is missing")),
            Some(Content::Raw(raw)) => {
                let mut draft = Draft::new(envelope, request.idempotency_key, Form::Whole)?;
                draft.digest.update(&raw);
                (raw, draft)
            }
            Some(Content::Message(message)) => {
                let content = compose(&message)?;
                let draft = Draft::structured(envelope, request.idempotency_key, &message)?;
                (Bytes::from(content), draft)
            }
        };
        let mut intake = match self.begin(caller, draft).await? {
            Begun::Message(intake) => intake,
            Begun::Nobody(nobody) => return nobody.finish().await.map(Response::new),
        };
        for piece in content.chunks(PIECE) {
            intake.add(piece).await?;
        }
        intake.finish().await.map(Response::new)
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<wire::SubmitStreamRequest>>,
    ) -> Result<Response<wire::SubmitStreamResponse>, Status> {
        let (caller, taken) = let_in(&request)?;
        let mut parts = Parts::of(request.into_inner(), taken, self);
        let Some(Part::Start(start)) = parts.next().await? else {
            return Err(invalid("start", "must come first"));
        };
        let draft = Draft::new(start.envelope.unwrap_or_default(), start.idempotency_key, Form::Streamed)?;
        let answer = match self.begin(caller, draft).await? {
            Begun::Message(mut intake) => {
                while let Some(chunk) = parts.chunk().await? {
                    intake.add(&chunk).await?;
                }
                intake.finish().await?
            }
            Begun::Nobody(mut nobody) => {
                while nobody.wants_content()
                    && let Some(chunk) = parts.chunk().await?
                {
                    nobody.add(&chunk);
                }
                nobody.finish().await?
            }
        };
        let wire::SubmitResponse { message_id, recipients, accepted_at } = answer;
        Ok(Response::new(wire::SubmitStreamResponse { message_id, recipients, accepted_at }))
    }
}

/// What the doorman knows of a request.
fn let_in<T>(request: &Request<T>) -> Result<(Caller, Taken), Status> {
    let extensions = request.extensions();
    let known = extensions.get::<Caller>().cloned().zip(extensions.get::<Taken>().cloned());
    known.ok_or_else(|| Status::internal("the call came past the doorman"))
}

/// The parts of a stream, whose sender is waited for so long only (R11): what came of a message that has no end is
/// given up, as in an SMTP session.
struct Parts {
    stream: Streaming<wire::SubmitStreamRequest>,
    taken: Taken,
    timeout: Duration,
    end: Instant,
}

impl Parts {
    fn of(stream: Streaming<wire::SubmitStreamRequest>, taken: Taken, submission: &Submission) -> Self {
        let Submission { part_timeout, stream_timeout, .. } = submission;
        Self { stream, taken, timeout: *part_timeout, end: Instant::now() + *stream_timeout }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Status> {
        match self.next().await? {
            None => Ok(None),
            Some(Part::Chunk(chunk)) => Ok(Some(chunk)),
            Some(Part::Start(_)) => Err(invalid("start", "comes only once")),
        }
    }

    async fn next(&mut self) -> Result<Option<Part>, Status> {
        // The part before is done with.
        self.taken.give_back();
        let until = self.end.min(Instant::now() + self.timeout);
        let part = tokio::time::timeout_at(until, self.stream.message()).await;
        let late = |_| status(Code::DeadlineExceeded, "PART_LATE", "the next part did not come in time");
        match part.map_err(late)?? {
            None => Ok(None),
            Some(request) => request.part.map(Some).ok_or_else(|| invalid("part", "is missing")),
        }
    }
}

/// What a program is told of a message that the queue does not have.
fn refusal(reason: NotKept) -> Status {
    match reason {
        NotKept::Refused(refused) if refused.is_transient() => {
            unavailable("REFUSED_FOR_NOW", refused.to_string(), RETRY_AFTER)
        }
        NotKept::Refused(refused) => status(Code::FailedPrecondition, "REFUSED", refused.to_string()),
        NotKept::NoFrom => invalid("raw", "the message has no From"),
        NotKept::KeyConflict => status(
            Code::AlreadyExists,
            "IDEMPOTENCY_KEY_REUSED",
            "the idempotency key was used with another request",
        ),
        NotKept::Full => exhausted("QUEUE_FULL", "there is no room for the message now", RETRY_AFTER),
        NotKept::Unknown => unavailable(
            "OUTCOME_UNKNOWN",
            "the queue did not say whether it has kept the message: repeat the call with its idempotency key",
            RETRY_AFTER,
        ),
        NotKept::Away => unavailable("QUEUE_AWAY", "the queue does not answer", RETRY_AFTER),
    }
}
