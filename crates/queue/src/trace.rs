//! What happened to messages, as values; and telling it to those who watch.

use posthorn_api::mail::v1 as wire;
use posthorn_api::timestamp;
use posthorn_api::trace::v1::{Event, EventKind, TraceMessageResponse};
use posthorn_mail::MessageId;
use prost::Message as _;
use time::OffsetDateTime;
use tokio::sync::broadcast;

use crate::message::{Recipient, Words};
use crate::spool::Message;

/// What one transaction did to a message. Its events do not name the message themselves: a row of the ledger needs that
/// once, not for each recipient.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) message: MessageId,
    pub(crate) trace: TraceMessageResponse,
}

impl Record {
    /// Something that happened to a message.
    pub(crate) fn new(message: MessageId, events: Vec<Event>) -> Self {
        Self { message, trace: TraceMessageResponse { events, ..Default::default() } }
    }

    /// The events, as others see them.
    pub(crate) fn named(&self) -> impl Iterator<Item = Event> {
        let message_id = self.message.to_string();
        self.trace.events.iter().map(move |event| Event { message_id: message_id.clone(), ..event.clone() })
    }

    /// As a row of the ledger.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        self.trace.encode_to_vec()
    }

    /// As the only or last row of a message whose own row goes: rows, one after the other, are one trace.
    pub(crate) fn after_accepted(&self, message: &Message) -> Vec<u8> {
        let mut row = Self::accepted(message).encoded();
        row.extend_from_slice(&self.encoded());
        row
    }

    /// A message was taken in. It stands in the message's own row until that goes; then it is written down with the
    /// rest.
    pub(crate) fn accepted(message: &Message) -> Self {
        let event = event(message.received_at, EventKind::Accepted);
        let event = Event { origin: Some(message.origin.clone()), ..event };
        Self {
            message: message.id,
            trace: TraceMessageResponse {
                events: vec![event],
                sender: message.sender.clone(),
                pending: 0,
                traceparent: message.traceparent.clone(),
            },
        }
    }
}

/// An event of a whole message.
pub(crate) fn event(at: OffsetDateTime, kind: EventKind) -> Event {
    Event { at: Some(timestamp(at)), kind: kind.into(), ..Default::default() }
}

/// An event of a recipient, with the words of its last attempt.
pub(crate) fn of_recipient(at: OffsetDateTime, kind: EventKind, recipient: &Recipient) -> Event {
    let words = |last: &Words| (last.status.clone().into(), last.server.clone().map(Into::into));
    let (status, server): (Option<wire::Status>, Option<wire::RemoteServer>) = match &recipient.last {
        None => (None, None),
        Some(last) => {
            let (status, server) = words(last);
            (Some(status), server)
        }
    };
    Event {
        recipient: recipient.address.clone(),
        attempt: recipient.attempts,
        status,
        server,
        ..event(at, kind)
    }
}

/// Those who watch events on this replica.
#[derive(Clone, Debug)]
pub(crate) struct Watchers {
    sender: broadcast::Sender<Event>,
}

impl Watchers {
    /// `max_lag`: events that a watcher may be behind before it loses some.
    pub(crate) fn new(max_lag: usize) -> Self {
        Self { sender: broadcast::Sender::new(max_lag.max(1)) }
    }

    /// Watches from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// Whether somebody does.
    pub(crate) fn any(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Tells what has happened; costs nothing while nobody watches.
    pub(crate) fn tell(&self, records: &[Record]) {
        if self.any() {
            for event in records.iter().flat_map(Record::named) {
                let _ = self.sender.send(event);
            }
        }
    }

    /// Passes on what happened on another replica.
    pub(crate) fn tell_one(&self, event: Event) {
        let _ = self.sender.send(event);
    }
}
