//! `SpoolService`: messages in, bytes out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use posthorn_api::error::invalid;
use posthorn_api::mail::v1 as wire;
use posthorn_api::spool::v1::spool_service_server::SpoolService;
use posthorn_api::spool::v1::{
    AcceptEnd, AcceptItem, AcceptRequest, AcceptResponse, AcceptResult, AcceptStart, AcceptStreamRequest,
    AcceptStreamResponse, Accepted, FindKeyRequest, FindKeyResponse, HeldRequest, HeldResponse, KeyConflict,
    ReadContentRequest, ReadContentResponse, Repeated, SettleRequest, SettleResponse,
    accept_result::Result as Wire, accept_stream_request::Part, find_key_response::Result as KeyUse,
};
use posthorn_api::work::v1::RouteResult;
use posthorn_api::{message_id, message_id_bytes, one_line};
use posthorn_content::Upload;
use posthorn_mail::{EnhancedStatus, Envelope, MessageId, Status as MailStatus};
use sqlx::PgConnection;
use time::OffsetDateTime;
use tonic::{Request, Response, Status, Streaming};

use crate::accept::{Accept, Answer, Content, Incoming};
use crate::error::failed;
use crate::hub::Hub;
use crate::outcome::route::Routed;
use crate::spool::{self, KnownKey, NewKey};

/// Serves ingress, and whoever reads contents.
#[derive(Clone)]
pub(crate) struct Spool {
    pub(crate) hub: Arc<Hub>,
    pub(crate) accept: Accept,
}

#[tonic::async_trait]
impl SpoolService for Spool {
    type ReadContentStream = BoxStream<'static, Result<ReadContentResponse, Status>>;

    async fn accept(&self, request: Request<AcceptRequest>) -> Result<Response<AcceptResponse>, Status> {
        self.accept_all(request.into_inner()).await.map(Response::new)
    }

    type AcceptEachStream = BoxStream<'static, Result<AcceptResponse, Status>>;

    async fn accept_each(
        &self,
        request: Request<Streaming<AcceptRequest>>,
    ) -> Result<Response<Self::AcceptEachStream>, Status> {
        let state = (self.clone(), request.into_inner());
        let answers = futures::stream::try_unfold(state, async |(spool, mut requests)| {
            let request = tokio::select! {
                request = requests.message() => request?,
                () = spool.hub.shutdown.cancelled() => None,
            };
            let Some(request) = request else { return Ok(None) };
            let answer = spool.accept_all(request).await?;
            Ok(Some((answer, (spool, requests))))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn accept_stream(
        &self,
        request: Request<Streaming<AcceptStreamRequest>>,
    ) -> Result<Response<AcceptStreamResponse>, Status> {
        let mut parts = request.into_inner();
        let Some(Part::Start(start)) = next(&mut parts).await?.and_then(|first| first.part) else {
            return Err(invalid("part", "a message begins with its start"));
        };
        storable(&start)?;
        let mut message = read_start(start, Content::Uploaded(0))?;
        if let Some(status) = self.limits(&message) {
            return Ok(refused(status, message.repeated));
        }
        let (size, end) = match self.upload(message.id, &mut parts).await? {
            Uploaded::Whole(size, end) => (size, end),
            Uploaded::TooLarge => return Ok(refused(too_large(), message.repeated)),
        };
        if end.size != size {
            return Err(invalid("end.size", format!("{} bytes were said, {size} have come", end.size)));
        }
        message.content = Content::Uploaded(size);
        complete(&mut message, &end);
        let answer = self.accept.accept(vec![message]).await?.into_iter().next();
        Ok(Response::new(AcceptStreamResponse { result: answer.map(encode) }))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        let id = message_id("message_id", &request.into_inner().message_id)?;
        let kept = spool::insert::settle(&self.hub.pool, id).await.map_err(failed)?;
        Ok(Response::new(SettleResponse { kept }))
    }

    async fn find_key(&self, request: Request<FindKeyRequest>) -> Result<Response<FindKeyResponse>, Status> {
        let FindKeyRequest { scope, key, digest } = request.into_inner();
        one_line("scope", &scope)?;
        one_line("key", &key)?;
        let names = [(scope, key)];
        let find = async |connection: &mut PgConnection| spool::insert::known_keys(connection, &names).await;
        let known = self.hub.standing.with(find).await.map_err(failed)?.into_values().next();
        let result = known.map(|known| {
            if known.digest == digest {
                KeyUse::Repeated(repeated(known))
            } else {
                KeyUse::KeyConflict(KeyConflict {})
            }
        });
        Ok(Response::new(FindKeyResponse { result }))
    }

    async fn read_content(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadContentStream>, Status> {
        let id = message_id("message_id", &request.into_inner().message_id)?;
        if spool::find::held(&self.hub.pool, &[id]).await.map_err(failed)?.is_empty() {
            return Err(Status::not_found("no such message, or it has ended"));
        }
        let chunks = posthorn_content::read(self.hub.pool.clone(), id);
        let chunks = chunks.map_ok(|chunk| ReadContentResponse { chunk }).map_err(failed);
        Ok(Response::new(chunks.boxed()))
    }

    async fn held(&self, request: Request<HeldRequest>) -> Result<Response<HeldResponse>, Status> {
        let ids = request.into_inner().message_ids;
        let ids = ids.iter().map(|id| message_id("message_ids", id)).collect::<Result<Vec<_>, _>>()?;
        let held = spool::find::held(&self.hub.pool, &ids).await.map_err(failed)?;
        Ok(Response::new(HeldResponse { message_ids: held.into_iter().map(message_id_bytes).collect() }))
    }
}

/// How long the next part of a message may take. Ingress, which has limits of its own for its clients, sends a chunk
/// when 256 KiB have come: in this time a client with 600 octets a second has sent them.
const SILENCE: Duration = Duration::from_secs(450);

/// The next part. A stream that has fallen silent is given up (R11), and with it what came of the message.
async fn next(parts: &mut Streaming<AcceptStreamRequest>) -> Result<Option<AcceptStreamRequest>, Status> {
    let late = |_| Status::aborted("the next part of the message did not come in time");
    tokio::time::timeout(SILENCE, parts.message()).await.map_err(late)?
}

/// What came of a stream of chunks.
enum Uploaded {
    Whole(u64, AcceptEnd),
    TooLarge,
}

impl Spool {
    async fn accept_all(&self, request: AcceptRequest) -> Result<AcceptResponse, Status> {
        let items = request.items;
        let mut results: Vec<Option<AcceptResult>> = Vec::with_capacity(items.len());
        let mut incoming = Vec::with_capacity(items.len());
        for item in items {
            let repeated = item.start.as_ref().is_some_and(|start| start.repeated);
            let read = read_item(item).and_then(|message| match self.limits(&message) {
                None => Ok(message),
                Some(status) => Err(status),
            });
            results.push(match read {
                Ok(message) => {
                    incoming.push(message);
                    None
                }
                Err(status) => Some(encode(refusal(status, repeated))),
            });
        }
        let mut answers = self.accept.accept(incoming).await?.into_iter().map(encode);
        let results = results.into_iter().map(|refused| refused.or_else(|| answers.next()));
        Ok(AcceptResponse { results: results.map(Option::unwrap_or_default).collect() })
    }

    /// Writes chunks as they come; a database connection is held only while one is written.
    async fn upload(
        &self,
        id: MessageId,
        parts: &mut Streaming<AcceptStreamRequest>,
    ) -> Result<Uploaded, Status> {
        let standing = &self.hub.standing;
        let begin = async |connection: &mut PgConnection| Upload::begin(connection, id).await;
        let mut upload = standing.with(begin).await.map_err(failed)?;
        while let Some(part) = next(parts).await? {
            let is_due = match part.part {
                Some(Part::Chunk(chunk)) => upload.add(&chunk),
                Some(Part::End(end)) => {
                    let write = async |connection: &mut PgConnection| upload.flush(connection).await;
                    let size = standing.with(write).await.map_err(failed)?;
                    return Ok(Uploaded::Whole(size, end));
                }
                Some(Part::Start(_)) => return Err(invalid("part", "a message has one start")),
                None => false,
            };
            if upload.size() > self.hub.config.accept.max_message.as_u64() {
                return Ok(Uploaded::TooLarge);
            }
            if is_due {
                let write = async |connection: &mut PgConnection| upload.write(connection).await;
                standing.with(write).await.map_err(failed)?;
            }
        }
        Err(invalid("part", "the stream ended before the message did"))
    }

    fn limits(&self, message: &Incoming) -> Option<MailStatus> {
        let limits = &self.hub.config.accept;
        let size = match &message.content {
            Content::Here(bytes) => bytes.len() as u64,
            Content::Uploaded(size) => *size,
        };
        if size > limits.max_message.as_u64() {
            return Some(too_large());
        }
        if message.envelope.recipients.len() > limits.max_recipients {
            return Some(MailStatus::new(452, EnhancedStatus::new(4, 5, 3), "too many recipients"));
        }
        None
    }
}

fn too_large() -> MailStatus {
    MailStatus::new(552, EnhancedStatus::new(5, 3, 4), "the message is too large")
}

/// An item of a batch. One that cannot be read is refused alone: the others, which came in together with it by chance,
/// do not suffer for it. Not for good, since a queue of the next version may be able to read it (R9); but what cannot be
/// stored never can.
fn read_item(item: AcceptItem) -> Result<Incoming, MailStatus> {
    let start = item.start.unwrap_or_default();
    let told = |error: &Status| {
        tracing::error!(reason = error.message(), "a message was handed in that cannot be read");
    };
    storable(&start).inspect_err(told).map_err(|_| {
        MailStatus::new(554, EnhancedStatus::new(5, 6, 0), "the message's envelope has a control character")
    })?;
    read_start(start, Content::Here(item.content)).inspect_err(told).map_err(|_| {
        MailStatus::new(451, EnhancedStatus::new(4, 3, 0), "the queue cannot read the message's envelope")
    })
}

/// Whether Postgres can hold the texts of a message that are stored as they come.
fn storable(start: &AcceptStart) -> Result<(), Status> {
    one_line("start.traceparent", &start.traceparent)?;
    if let Some(key) = &start.idempotency {
        one_line("start.idempotency.scope", &key.scope)?;
        one_line("start.idempotency.key", &key.key)?;
    }
    if let Some(envelope) = &start.envelope {
        one_line("start.envelope.envelope_id", &envelope.envelope_id)?;
        for (at, recipient) in envelope.recipients.iter().enumerate() {
            let field = format!("start.envelope.recipients[{at}].original_recipient");
            one_line(&field, &recipient.original_recipient)?;
        }
    }
    Ok(())
}

fn read_start(start: AcceptStart, content: Content) -> Result<Incoming, Status> {
    let id = message_id("start.message_id", &start.message_id)?;
    let envelope: Envelope =
        start.envelope.ok_or_else(|| invalid("start.envelope", "is missing"))?.try_into()?;
    if envelope.recipients.is_empty() {
        return Err(invalid("start.envelope.recipients", "is empty"));
    }
    let whole = start.routed.len() == envelope.recipients.len();
    let targets = if whole { start.routed } else { Vec::new() };
    let routed = (1..)
        .zip(targets)
        .map(|(recipient_no, target)| Routed::read(RouteResult { recipient_no, targets: vec![target] }))
        .collect::<Result<_, _>>()?;
    let key = start.idempotency.map(|given| NewKey {
        scope: given.scope,
        key: given.key,
        digest: given.digest.to_vec(),
        answer: given.answer.to_vec(),
        message: id,
    });
    Ok(Incoming {
        id,
        envelope,
        origin: start.origin.unwrap_or_default(),
        received_at: start
            .received_at
            .and_then(posthorn_api::time_of)
            .unwrap_or_else(OffsetDateTime::now_utc),
        traceparent: start.traceparent,
        key,
        content,
        repeated: start.repeated,
        routed,
    })
}

/// Takes up what a client could say only once it had seen the whole of a stream.
fn complete(message: &mut Incoming, end: &AcceptEnd) {
    if end.body() != wire::Body::Unspecified {
        message.envelope.body = end.body().into();
    }
    if let Some(key) = &mut message.key {
        if !end.answer.is_empty() {
            key.answer = end.answer.to_vec();
        }
        if key.digest.is_empty() {
            key.digest = end.digest.to_vec();
        }
    }
}

fn refused(status: MailStatus, repeated: bool) -> Response<AcceptStreamResponse> {
    Response::new(AcceptStreamResponse { result: Some(encode(refusal(status, repeated))) })
}

/// What is refused here may have been kept by an earlier call, to a replica with other limits or of another version.
fn refusal(status: MailStatus, repeated: bool) -> Answer {
    if repeated { Answer::Unknown } else { Answer::Refused(status) }
}

fn repeated(first: KnownKey) -> Repeated {
    Repeated { message_id: message_id_bytes(first.message_id.into()), answer: Bytes::from(first.answer) }
}

fn encode(answer: Answer) -> AcceptResult {
    let result = match answer {
        Answer::Unknown => return AcceptResult { result: None },
        Answer::Accepted => Wire::Accepted(Accepted {}),
        Answer::Repeated(first) => Wire::Repeated(repeated(first)),
        Answer::KeyConflict => Wire::KeyConflict(KeyConflict {}),
        Answer::Refused(status) => Wire::Refused(status.into()),
    };
    AcceptResult { result: Some(result) }
}

#[cfg(test)]
mod tests {
    use posthorn_api::mail::v1::{Envelope, Recipient};

    use super::*;

    fn item(recipient: &str) -> AcceptItem {
        let recipient = Recipient { address: recipient.to_owned(), ..Recipient::default() };
        let start = AcceptStart {
            envelope: Some(Envelope { recipients: vec![recipient], ..Envelope::default() }),
            message_id: message_id_bytes(MessageId::generate()),
            ..AcceptStart::default()
        };
        AcceptItem { start: Some(start), content: Bytes::new() }
    }

    #[test]
    fn an_item_that_cannot_be_read_is_refused_for_now_and_alone() {
        assert!(read_item(item("alice@example.test")).is_ok());
        for unreadable in [item("alice"), item("alice@xn--a.example"), AcceptItem::default()] {
            let refused = read_item(unreadable).unwrap_err();
            assert_eq!(refused.code(), 451, "{refused}");
        }
    }
}
