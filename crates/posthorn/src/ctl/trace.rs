//! `ctl trace` and `ctl events`

use anyhow::{Result, bail};
use posthorn_api::trace::v1 as api;
use serde::Serialize;

use super::connect::Services;
use super::output::Output;
use super::values::{Origin, Server, Status, rfc3339};

#[derive(Debug, clap::Args)]
pub(super) struct Trace {
    message_id: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Only those of a message
    #[arg(long = "message", value_name = "ID")]
    message_id: Option<String>,
    /// Only of these kinds
    #[arg(long = "kind", value_delimiter = ',')]
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[value(skip)]
    Unknown,
    Accepted,
    Routed,
    Expanded,
    Delivered,
    Deferred,
    Failed,
    Uncertain,
    Notice,
    Held,
    Released,
    Poison,
    Retried,
    Ended,
}

/// Both ways of a kind, and its name.
const KINDS: [(Kind, api::EventKind, &str); 13] = [
    (Kind::Accepted, api::EventKind::Accepted, "accepted"),
    (Kind::Routed, api::EventKind::Routed, "routed"),
    (Kind::Expanded, api::EventKind::Expanded, "expanded"),
    (Kind::Delivered, api::EventKind::Delivered, "delivered"),
    (Kind::Deferred, api::EventKind::Deferred, "deferred"),
    (Kind::Failed, api::EventKind::Failed, "failed"),
    (Kind::Uncertain, api::EventKind::Uncertain, "uncertain"),
    (Kind::Notice, api::EventKind::Notice, "notice"),
    (Kind::Held, api::EventKind::Held, "held"),
    (Kind::Released, api::EventKind::Released, "released"),
    (Kind::Poison, api::EventKind::Poison, "poison"),
    (Kind::Retried, api::EventKind::Retried, "retried"),
    (Kind::Ended, api::EventKind::Ended, "ended"),
];

/// An event as it is printed.
#[derive(Serialize)]
struct Event {
    at: Option<String>,
    message_id: String,
    kind: Kind,
    recipient: String,
    attempt: u32,
    status: Option<Status>,
    server: Option<Server>,
    detail: String,
    next_attempt_at: Option<String>,
    origin: Option<Origin>,
}

impl From<api::Event> for Event {
    fn from(event: api::Event) -> Self {
        let kind = KINDS.iter().find(|(_, wire, _)| *wire == event.kind());
        Self {
            kind: kind.map_or(Kind::Unknown, |(kind, ..)| *kind),
            at: rfc3339(event.at),
            message_id: event.message_id,
            recipient: event.recipient,
            attempt: event.attempt,
            status: event.status.map(Into::into),
            server: event.server.map(Into::into),
            detail: event.detail,
            next_attempt_at: rfc3339(event.next_attempt_at),
            origin: event.origin.map(Into::into),
        }
    }
}

impl Event {
    /// `2026-11-23T08:00:01Z  deferred   bob@example.net (attempt 2): mx1.example.net [192.0.2.1:25]: 451 4.7.1
    /// Greylisted; next attempt 2026-11-23T08:05:01Z`
    fn text(&self) -> String {
        let name = KINDS.iter().find(|(kind, ..)| *kind == self.kind).map_or("unknown", |(_, _, name)| name);
        let mut text = format!("{:27}  {name:9}", self.at.as_deref().unwrap_or("-"));
        if !self.recipient.is_empty() {
            text.push_str(&format!("  {}", self.recipient));
        }
        if self.attempt > 0 {
            text.push_str(&format!(" (attempt {})", self.attempt));
        }
        let said = match (&self.server, &self.status) {
            (Some(server), Some(status)) => Some(format!("{server}: {status}")),
            (Some(server), None) => Some(server.to_string()),
            (None, Some(status)) => Some(status.to_string()),
            (None, None) => None,
        };
        let detail = Some(self.detail.clone()).filter(|detail| !detail.is_empty());
        let origin = self.origin.as_ref().map(ToString::to_string);
        let next = self.next_attempt_at.as_ref().map(|at| format!("next attempt {at}"));
        let rest: Vec<String> = [origin, said, detail, next].into_iter().flatten().collect();
        if !rest.is_empty() {
            let colon = if self.recipient.is_empty() { "  " } else { ": " };
            text.push_str(&format!("{colon}{}", rest.join("; ")));
        }
        text.trim_end().to_owned()
    }
}

impl Trace {
    pub(super) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let request = api::TraceMessageRequest { message_id: self.message_id.clone() };
        let answer = services.trace().await?.trace_message(request).await?.into_inner();
        let events = answer.events.into_iter().map(Event::from);
        if out.json() {
            return Ok(events.into_iter().try_for_each(|event| out.object(&event))?);
        }
        let sender = if answer.sender.is_empty() { "<>" } else { &answer.sender };
        out.line(&format!("message {} from {sender}", self.message_id))?;
        if !answer.traceparent.is_empty() {
            out.line(&format!("traceparent {}", answer.traceparent))?;
        }
        for event in events {
            out.line(&event.text())?;
        }
        Ok(match answer.pending {
            0 => out.line("all recipients have ended"),
            1 => out.line("1 recipient has not ended"),
            pending => out.line(&format!("{pending} recipients have not ended")),
        }?)
    }
}

impl Events {
    /// Goes on until the service ends the stream, or whoever reads goes away.
    pub(super) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let wire =
            |kind: &Kind| KINDS.iter().find(|(ours, ..)| ours == kind).map(|(_, wire, _)| *wire as i32);
        let request = api::WatchEventsRequest {
            message_id: self.message_id.unwrap_or_default(),
            kinds: self.kinds.iter().filter_map(wire).collect(),
        };
        let mut stream = services.trace().await?.watch_events(request).await?.into_inner();
        while let Some(answer) = stream.message().await? {
            if let Some(event) = answer.event {
                let event = Event::from(event);
                out.event(&event, &format!("{}  {}", event.message_id, event.text()))?;
            }
        }
        bail!("the queue ended the stream")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn an_event_is_a_sentence() {
        let accepted = api::Event {
            at: at(1_795_420_801),
            kind: api::EventKind::Accepted.into(),
            origin: Some(posthorn_api::mail::v1::Origin {
                protocol: "ESMTP".into(),
                client_address: "192.0.2.9".into(),
                helo: "client.example".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let deferred = api::Event {
            at: at(1_795_420_802),
            kind: api::EventKind::Deferred.into(),
            recipient: "bob@example.net".into(),
            attempt: 2,
            status: Some(posthorn_api::mail::v1::Status {
                code: 451,
                enhanced: "4.7.1".into(),
                text: "Greylisted".into(),
                words: 0,
            }),
            server: Some(posthorn_api::mail::v1::RemoteServer {
                host: "mx1.example.net".into(),
                address: "192.0.2.1:25".into(),
                tls: String::new(),
            }),
            next_attempt_at: at(1_795_421_102),
            ..Default::default()
        };
        for (event, text) in [
            (accepted, "accepted   from 192.0.2.9 (client.example) by ESMTP"),
            (
                deferred,
                "deferred   bob@example.net (attempt 2): mx1.example.net [192.0.2.1:25]: 451 4.7.1 Greylisted; \
                 next attempt 2026-11-23T08:05:02Z",
            ),
        ] {
            let shown = Event::from(event).text();
            assert!(shown.starts_with("2026-11-23T08:00:0") && shown.ends_with(text), "{shown}");
        }
    }
}
