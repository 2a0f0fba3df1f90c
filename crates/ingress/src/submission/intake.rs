//! A message that a program hands in, from its envelope to the answer.

use bytes::Bytes;
use posthorn_api::error::{invalid, status};
use posthorn_api::key;
use posthorn_api::spool::v1::Idempotency;
use posthorn_api::submission::v1 as wire;
use posthorn_api::timestamp;
use posthorn_mail::{Address, Body, EnhancedStatus, MessageId, Recipient, Status as Reply};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::caller::Caller;
use super::draft::{Draft, Form};
use super::{Submission, refusal};
use crate::admission::{Judged, Verdict};
use crate::handover::{Handover, Kept};
use crate::incoming::Incoming;
use crate::line_ends::LineEnds;
use crate::session::without_repeats;

/// A message on its way in.
pub(super) struct Intake<'a> {
    handover: &'a Handover,
    message: Incoming,
    answer: wire::SubmitResponse,
    /// Of what is still to come of the request; `None` when the queue has it already.
    digest: Option<Sha256>,
    line_ends: LineEnds,
    eight_bit: bool,
    size_limit: u64,
    piece: Vec<u8>,
}

impl Submission {
    /// Asks about the recipients, and begins the message for those that are taken.
    pub(super) async fn begin(&self, caller: Caller, draft: Draft) -> Result<Intake<'_>, Status> {
        let Draft { mut envelope, authors, key, form, digest } = draft;
        if envelope.recipients.len() > self.recipients {
            return Err(invalid("envelope.recipients", format!("there are more than {}", self.recipients)));
        }
        let (fields, authors): (Vec<_>, Vec<_>) = authors.into_iter().unzip();
        let judged = self.admission.judge(&authors, &envelope).await.map_err(|_| key::directory_away())?;
        let Judged { owners, verdicts } = judged;
        if let Some((_, tenant)) = &caller.source.key {
            may_speak_for(tenant, fields.iter().zip(&authors).zip(&owners))?;
        }
        let recipients: Vec<_> = envelope.recipients.iter().zip(&verdicts).map(recipient_result).collect();
        if verdicts.iter().all(Result::is_err) {
            return Err(nobody(&recipients));
        }
        let mut taken = verdicts.iter().map(Result::is_ok);
        envelope.recipients.retain(|_| taken.next().unwrap_or(false));
        let (id, at) = (MessageId::generate(), OffsetDateTime::now_utc());
        let answer =
            wire::SubmitResponse { message_id: id.to_string(), recipients, accepted_at: Some(timestamp(at)) };
        let (known, digest) = match form {
            Form::Whole => (Bytes::copy_from_slice(&digest.finalize()), None),
            Form::Streamed => (Bytes::new(), Some(digest)),
        };
        let idempotency = (!key.is_empty()).then(|| Idempotency {
            scope: caller.key_scope,
            key,
            digest: known,
            answer: answer.encode_to_vec().into(),
        });
        if envelope.body == Body::SevenBit && envelope.smtputf8 {
            envelope.body = Body::EightBitMime;
        }
        let message = Incoming::begin(&self.rules, &caller.source, without_repeats(envelope), id, at)
            .with_idempotency(idempotency);
        Ok(Intake {
            handover: &self.handover,
            message,
            answer,
            digest,
            line_ends: LineEnds::default(),
            eight_bit: false,
            size_limit: self.message_size,
            piece: Vec::new(),
        })
    }
}

impl Intake<'_> {
    /// Takes the next piece of the content.
    pub(super) async fn add(&mut self, piece: &[u8]) -> Result<(), Status> {
        if let Some(digest) = &mut self.digest {
            digest.update(piece);
        }
        self.piece.clear();
        self.line_ends.write(piece, &mut self.piece).map_err(|error| invalid("raw", error))?;
        self.eight_bit |= !piece.is_ascii();
        if self.message.size() + self.piece.len() as u64 > self.size_limit {
            let text = format!("the message is larger than {} octets", self.size_limit);
            return Err(status(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", text));
        }
        self.message.add(&self.piece, self.handover).await;
        Ok(())
    }

    /// Hands the message over; the answer for the caller.
    pub(super) async fn finish(self) -> Result<wire::SubmitResponse, Status> {
        self.line_ends.end().map_err(|error| invalid("raw", error))?;
        let size = self.message.size();
        let digest = self.digest.map(|digest| Bytes::copy_from_slice(&digest.finalize())).unwrap_or_default();
        let kept = self.message.finish(self.eight_bit, digest, self.handover).await;
        let (result, answer) = match kept {
            Ok(Kept::New) => ("accepted", Ok(self.answer)),
            Ok(Kept::Repeated(answer)) => ("repeated", first_answer(&answer)),
            Err(reason) => ("refused", Err(refusal(reason))),
        };
        metrics::counter!("posthorn_ingress_messages_total", "door" => "grpc", "result" => result)
            .increment(1);
        match &answer {
            Ok(answer) => {
                tracing::info!(message_id = answer.message_id, door = "grpc", size, "message {result}");
            }
            Err(status) => {
                tracing::info!(door = "grpc", size, code = ?status.code(), reason = status.message(), "message {result}");
            }
        }
        answer
    }
}

/// A key speaks for nobody in the domains of other tenants.
fn may_speak_for<'a>(
    tenant: &str,
    authors: impl Iterator<Item = ((&'a &'static str, &'a Address), &'a String)>,
) -> Result<(), Status> {
    for ((field, author), owner) in authors {
        if !owner.is_empty() && owner != tenant {
            let text = format!("{field}: the API key is not for the domain of {author}");
            return Err(status(Code::PermissionDenied, "SENDER_NOT_YOURS", text));
        }
    }
    Ok(())
}

/// What was answered when the idempotency key came first.
fn first_answer(answer: &[u8]) -> Result<wire::SubmitResponse, Status> {
    wire::SubmitResponse::decode(answer).map_err(|error| {
        tracing::error!(%error, "the queue gave back an answer that is none");
        status(Code::Internal, "ANSWER_LOST", "the first answer to this idempotency key cannot be read")
    })
}

fn recipient_result((recipient, verdict): (&Recipient, &Verdict)) -> wire::RecipientResult {
    let reply = match verdict {
        Ok(()) => Reply::new(250, EnhancedStatus::new(2, 1, 5), "Ok"),
        Err(reply) => reply.clone(),
    };
    wire::RecipientResult {
        address: recipient.address.to_string(),
        accepted: verdict.is_ok(),
        status: Some(reply.into()),
    }
}

/// No recipient was taken: the status tells why for each.
fn nobody(recipients: &[wire::RecipientResult]) -> Status {
    let why = recipients.iter().map(|recipient| {
        let status = recipient.status.clone().unwrap_or_default();
        format!("{}: {} {} {}", recipient.address, status.code, status.enhanced, status.text)
    });
    // A header of HTTP/2 carries it: a long list is cut.
    let why: Vec<_> = why.take(20).collect();
    status(Code::FailedPrecondition, "NO_RECIPIENT", format!("no recipient was accepted: {}", why.join("; ")))
}
