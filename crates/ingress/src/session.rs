//! A client's SMTP session: what each event of it needs.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use posthorn_mail::{Envelope, MessageId, Status};
use posthorn_service::Networks;
use posthorn_smtp_io::server::{Connection, Event};
use time::OffsetDateTime;
use tracing::{Instrument as _, Span};

use crate::admission::{Admission, Away};
use crate::budget::Budget;
use crate::handover::{Handover, Kept, queued_as};
use crate::incoming::{Incoming, Rules, Source};
use crate::received::protocol;

/// What the sessions of one door share.
#[derive(Debug)]
pub(crate) struct Door {
    /// `smtp` or `submission`, for logs and metrics.
    pub(crate) name: &'static str,
    pub(crate) admission: Admission,
    pub(crate) handover: Handover,
    pub(crate) budget: Budget,
    pub(crate) trusted: Networks,
    /// Mail is taken only from clients of trusted networks, not even for recipients here (RFC 6409 §4.3).
    pub(crate) trusted_only: bool,
    pub(crate) rules: Rules,
}

impl Door {
    /// Follows a session to its end.
    pub(crate) async fn serve(&self, mut connection: Connection) {
        let client = connection.peer();
        let may_relay = self.trusted.contain(client.ip());
        metrics::counter!("posthorn_ingress_connections_total", "door" => self.name).increment(1);
        metrics::gauge!("posthorn_ingress_connections", "door" => self.name).increment(1);
        tracing::debug!(%client, door = self.name, may_relay, "connected");
        if self.trusted_only && !may_relay {
            connection.want_authentication();
        }
        let mut message: Option<(Incoming, Span)> = None;
        while let Some(event) = connection.next().await {
            match event {
                Event::Verify { sender, recipients } => {
                    let verdicts = self.admission.verify(&sender, &recipients, may_relay).await;
                    let away = |away: Away| vec![Err(away.status()); recipients.len()];
                    connection.verified(verdicts.unwrap_or_else(away));
                }
                Event::Begin(envelope) => message = Some(self.begin(&connection, envelope)),
                Event::Chunk(piece) => {
                    if let Some((message, span)) = &mut message {
                        message.add(&piece, &self.handover).instrument(span.clone()).await;
                    }
                }
                Event::End { eight_bit } => {
                    if let Some((message, span)) = message.take() {
                        match self.finish(message, eight_bit).instrument(span).await {
                            Some(status) => connection.finished(&status),
                            None => connection.hang_up(),
                        }
                    }
                }
                Event::Abort => message = None,
            }
        }
        metrics::gauge!("posthorn_ingress_connections", "door" => self.name).decrement(1);
        tracing::debug!(%client, "disconnected");
    }

    fn begin(&self, connection: &Connection, envelope: Envelope) -> (Incoming, Span) {
        let id = MessageId::generate();
        let span = tracing::info_span!("message", message_id = %id);
        let client = connection.client();
        let tls = connection.tls();
        let extended = client.is_some_and(|client| client.extended);
        let source = Source {
            protocol: protocol(extended, tls.is_some(), envelope.smtputf8),
            client: connection.peer(),
            server: connection.local(),
            helo: client.map(|client| client.name.clone()),
            tls,
            key: None,
        };
        let envelope = without_repeats(envelope);
        let (named, share) = ((id, OffsetDateTime::now_utc()), self.budget.share());
        let message = span.in_scope(|| Incoming::begin(&self.rules, &source, envelope, named, share));
        (message, span)
    }

    /// Hands the message over and says what the client is told; `None`: nothing can be.
    async fn finish(&self, mut message: Incoming, eight_bit: bool) -> Option<Status> {
        message.take_along(&self.admission);
        let (id, size, began) = (message.id(), message.size(), Instant::now());
        let kept = message.finish(eight_bit, Bytes::new(), &self.handover).await;
        metrics::histogram!("posthorn_ingress_handover_seconds").record(began.elapsed().as_secs_f64());
        let status = match kept {
            Ok(Kept::New | Kept::Repeated(_)) => Some(queued_as(id)),
            Err(reason) => reason.status(),
        };
        let result = match &status {
            Some(status) if status.code() < 400 => "accepted",
            Some(_) => "refused",
            None => "unknown",
        };
        metrics::counter!("posthorn_ingress_messages_total", "door" => self.name, "result" => result)
            .increment(1);
        metrics::counter!("posthorn_ingress_received_bytes_total", "door" => self.name).increment(size);
        tracing::info!(message_id = %id, door = self.name, size, status = status.as_ref().map(ToString::to_string), "message {result}");
        status
    }
}

/// The envelope with each recipient once, as it was given first: a client that names one twice still wants one copy.
pub(crate) fn without_repeats(mut envelope: Envelope) -> Envelope {
    let mut seen = HashSet::with_capacity(envelope.recipients.len());
    envelope.recipients.retain(|recipient| seen.insert(recipient.address.clone()));
    envelope
}
