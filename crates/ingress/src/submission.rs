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
use tonic::{Code, Request, Response, Status, Streaming};

use crate::admission::Admission;
use crate::compose::compose;
use crate::handover::{Handover, NotKept};
use crate::incoming::Rules;

mod caller;
mod draft;
mod intake;

use draft::{Draft, Form};

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
    /// Octets of a message.
    pub(crate) message_size: u64,
    /// Recipients of a message.
    pub(crate) recipients: usize,
}

#[tonic::async_trait]
impl SubmissionService for Submission {
    async fn submit(
        &self,
        request: Request<wire::SubmitRequest>,
    ) -> Result<Response<wire::SubmitResponse>, Status> {
        let caller = self.caller(&request).await?;
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
        let mut intake = self.begin(caller, draft).await?;
        for piece in content.chunks(PIECE) {
            intake.add(piece).await?;
        }
        intake.finish().await.map(Response::new)
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<wire::SubmitStreamRequest>>,
    ) -> Result<Response<wire::SubmitStreamResponse>, Status> {
        let caller = self.caller(&request).await?;
        let mut parts = request.into_inner();
        let Some(Part::Start(start)) = next(&mut parts).await? else {
            return Err(invalid("start", "must come first"));
        };
        let draft = Draft::new(start.envelope.unwrap_or_default(), start.idempotency_key, Form::Streamed)?;
        let mut intake = self.begin(caller, draft).await?;
        while let Some(part) = next(&mut parts).await? {
            match part {
                Part::Chunk(chunk) => intake.add(&chunk).await?,
                Part::Start(_) => return Err(invalid("start", "comes only once")),
            }
        }
        let wire::SubmitResponse { message_id, recipients, accepted_at } = intake.finish().await?;
        Ok(Response::new(wire::SubmitStreamResponse { message_id, recipients, accepted_at }))
    }
}

async fn next(parts: &mut Streaming<wire::SubmitStreamRequest>) -> Result<Option<Part>, Status> {
    match parts.message().await? {
        None => Ok(None),
        Some(request) => request.part.map(Some).ok_or_else(|| invalid("part", "is missing")),
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
        NotKept::Full => exhausted("QUEUE_FULL", "the queue is full", RETRY_AFTER),
        NotKept::Unknown => unavailable(
            "OUTCOME_UNKNOWN",
            "the queue did not say whether it has kept the message: repeat the call with its idempotency key",
            RETRY_AFTER,
        ),
        NotKept::Away => unavailable("QUEUE_AWAY", "the queue does not answer", RETRY_AFTER),
    }
}
