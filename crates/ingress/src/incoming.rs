//! A message while it comes in.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use posthorn_api::mail::v1 as wire_mail;
use posthorn_api::spool::v1::{AcceptStart, Idempotency};
use posthorn_api::{message_id_bytes, timestamp};
use posthorn_mail::{Body, EnhancedStatus, Envelope, MessageId, Status};
use time::OffsetDateTime;

use crate::admission::Admission;
use crate::budget::{Share, Spent};
use crate::handover::{Handover, Kept, NotKept, know_end};
use crate::header::HeaderScan;
use crate::received::{Received, date};
use crate::upload::Upload;

/// How large the chunks are that a large message goes to the queue in.
const CHUNK: usize = 256 << 10;

/// What is done to every message that comes in at one door.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// This server's name.
    pub(crate) hostname: String,
    /// Received fields before a loop is declared.
    pub(crate) hops: u32,
    /// Octets of the header section.
    pub(crate) header_size: usize,
    /// Octets up to which a message goes to the queue whole.
    pub(crate) inline: usize,
    /// A missing Date and Message-ID are added (RFC 6409 §8).
    pub(crate) completes: bool,
    /// A message without From is refused.
    pub(crate) wants_from: bool,
}

/// Where a message comes from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The "with" of the Received line.
    pub(crate) protocol: &'static str,
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    /// What the client called itself.
    pub(crate) helo: Option<String>,
    /// TLS version and cipher.
    pub(crate) tls: Option<String>,
    /// The API key that the client proved to have, and its tenant.
    pub(crate) key: Option<(String, String)>,
}

/// A message from its first octet to the queue's answer.
#[derive(Debug)]
pub(crate) struct Incoming {
    id: MessageId,
    rules: Rules,
    start: AcceptStart,
    body: Body,
    at: OffsetDateTime,
    /// The Received line, and what came after it and was not sent yet.
    buffer: BytesMut,
    /// What the buffer takes of the memory.
    share: Share,
    /// How much of the buffer is the Received line.
    trace: usize,
    header: HeaderScan,
    upload: Option<Upload>,
    /// Octets that came.
    size: u64,
    /// It is known already that the message will not be taken; nothing of it is kept any more.
    refused: Option<NotKept>,
}

impl Incoming {
    /// A message whose envelope is known.
    pub(crate) fn begin(
        rules: &Rules,
        source: &Source,
        envelope: Envelope,
        (id, at): (MessageId, OffsetDateTime),
        share: Share,
    ) -> Self {
        let received = Received {
            from: source.helo.as_deref(),
            client: source.client.ip(),
            by: &rules.hostname,
            protocol: source.protocol,
            tls: source.tls.as_deref(),
            id,
            recipients: &envelope.recipients,
            at,
        };
        let buffer = BytesMut::from(received.line().as_bytes());
        let body = envelope.body;
        Self {
            id,
            rules: rules.clone(),
            start: start(source, envelope, id, at),
            body,
            at,
            trace: buffer.len(),
            buffer,
            share,
            header: HeaderScan::default(),
            upload: None,
            size: 0,
            refused: None,
        }
    }

    /// The key under which the queue tells a repeated request from a new one.
    pub(crate) fn with_idempotency(mut self, idempotency: Option<Idempotency>) -> Self {
        self.start.idempotency = idempotency;
        self
    }

    /// Takes along what the router has just said of the recipients, so that it need not be asked again.
    pub(crate) fn take_along(&mut self, admission: &Admission) {
        if let Some(envelope) = &self.start.envelope {
            self.start.routed = admission.routed(envelope.recipients.iter().map(|r| r.address.as_str()));
        }
    }

    /// The message's id.
    pub(crate) fn id(&self) -> MessageId {
        self.id
    }

    /// Octets that came so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next piece. What is wrong with it is told at the end.
    pub(crate) async fn add(&mut self, piece: &[u8], handover: &Handover) {
        if self.refused.is_some() {
            return;
        }
        self.size += piece.len() as u64;
        if self.make_room(self.buffer.len() + piece.len()).is_err() {
            return self.refuse(NotKept::Full);
        }
        self.buffer.extend_from_slice(piece);
        if self.upload.is_none() {
            self.header.read(&self.buffer[self.trace..]);
            if let Err(reason) = self.check_header(false) {
                return self.refuse(reason);
            }
            if self.header.end.is_none() || self.buffer.len() - self.trace <= self.rules.inline {
                return;
            }
            self.complete_header();
            self.upload = Some(handover.upload(self.start.clone()));
        }
        self.send_full_chunks().await;
    }

    /// The message is all there: hands it over, and returns the queue's answer. `digest` is that of the request, where
    /// it was not known before.
    pub(crate) async fn finish(
        mut self,
        eight_bit: bool,
        digest: Bytes,
        handover: &Handover,
    ) -> Result<Kept, NotKept> {
        if let Some(reason) = self.refused.take() {
            return Err(reason);
        }
        // Many clients send 8-bit content without saying so; the next server is to know.
        if self.body == Body::SevenBit && eight_bit {
            self.body = Body::EightBitMime;
        }
        let body = wire_mail::Body::from(self.body);
        match self.upload.take() {
            Some(mut upload) => {
                if !self.buffer.is_empty() {
                    upload.send(self.buffer.split().freeze()).await?;
                }
                upload.finish(body, digest).await
            }
            None => {
                self.header.read_to_end(&self.buffer[self.trace..]);
                self.check_header(true)?;
                self.complete_header();
                know_end(&mut self.start, body, digest);
                handover.accept(self.start, self.buffer.freeze()).await
            }
        }
    }

    /// Holds so much memory, and what is kept to begin again, as long as there is plenty.
    fn make_room(&mut self, octets: usize) -> Result<(), Spent> {
        if let Some(upload) = &mut self.upload {
            if self.share.hold_spare(octets + upload.kept()).is_ok() {
                return Ok(());
            }
            upload.give_up_kept();
        }
        self.share.hold(octets)
    }

    fn refuse(&mut self, reason: NotKept) {
        self.refused = Some(reason);
        self.buffer = BytesMut::new();
        self.share.give_back();
        self.upload = None;
    }

    fn check_header(&self, all_there: bool) -> Result<(), NotKept> {
        let refused = |enhanced, text: &str| Err(NotKept::Refused(Status::new(554, enhanced, text)));
        if self.header.hops > self.rules.hops {
            // RFC 5321 §6.3.
            return refused(EnhancedStatus::new(5, 4, 6), "Too many hops: the message loops");
        }
        let size = self.header.end.unwrap_or(self.buffer.len() - self.trace);
        if size > self.rules.header_size {
            return refused(EnhancedStatus::new(5, 6, 0), "The header section is too large");
        }
        let is_read = all_there || self.header.end.is_some();
        if self.rules.wants_from && is_read && !self.header.has_from {
            return Err(NotKept::NoFrom);
        }
        Ok(())
    }

    /// Puts in what a submission lacks.
    fn complete_header(&mut self) {
        if !self.rules.completes {
            return;
        }
        let message_id = format!("{}@{}", self.id, self.rules.hostname);
        let fields = self.header.missing_fields(&date(self.at), &message_id);
        if !fields.is_empty() {
            let rest = self.buffer.split_off(self.trace + self.header.place_for_more());
            self.buffer.extend_from_slice(fields.as_bytes());
            self.buffer.extend_from_slice(&rest);
        }
    }

    async fn send_full_chunks(&mut self) {
        while self.buffer.len() >= CHUNK
            && let Some(upload) = &mut self.upload
        {
            let chunk = self.buffer.split_to(CHUNK).freeze();
            if let Err(reason) = upload.send(chunk).await {
                self.refuse(reason);
            }
        }
    }
}

/// All that is known of a message but its octets.
fn start(source: &Source, envelope: Envelope, id: MessageId, at: OffsetDateTime) -> AcceptStart {
    let (key, tenant) = source.key.clone().unwrap_or_default();
    let origin = wire_mail::Origin {
        protocol: source.protocol.to_owned(),
        client_address: source.client.ip().to_string(),
        helo: source.helo.clone().unwrap_or_default(),
        authenticated_as: key,
        tenant_id: tenant,
        server_address: source.server.to_string(),
    };
    AcceptStart {
        envelope: Some(envelope.into()),
        origin: Some(origin),
        message_id: message_id_bytes(id),
        received_at: Some(timestamp(at)),
        traceparent: posthorn_service::trace::current_traceparent(),
        idempotency: None,
        repeated: false,
        routed: Vec::new(),
    }
}
