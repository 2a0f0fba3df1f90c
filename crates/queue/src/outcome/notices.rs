//! Writing notices: messages of Posthorn's own to the senders of others.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use posthorn_api::mail::v1::Origin;
use posthorn_api::trace::v1::{Event, EventKind};
use posthorn_dsn::{RecipientReport, Report, Returned};
use posthorn_mail::{Address, Envelope, MessageId, Recipient, Ret, ReversePath};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::effects::{Effects, Tell};
use crate::accept::{Content, Incoming};
use crate::config::Config;
use crate::notice::Occasion;
use crate::spool::Message;
use crate::trace;

/// The most bytes of whole messages that come back with the notices of one transaction: they are all held in memory. Of
/// what does not fit the headers come back.
const WHOLE: u64 = 64 * 1024 * 1024;
/// More than any message's headers: what is read of a content of which the headers come back.
const HEADERS: usize = 128 * 1024;

/// Writes the notices that are due: one for each message, sender and occasion, however many recipients it tells of.
pub(super) async fn write(
    connection: &mut PgConnection,
    config: &Config,
    effects: &mut Effects<'_>,
) -> sqlx::Result<Vec<Incoming>> {
    let mut groups: BTreeMap<(MessageId, String, u8), (Occasion, Vec<RecipientReport>)> = BTreeMap::new();
    for Tell { message, to, occasion, report } in std::mem::take(&mut effects.tell) {
        let group = groups.entry((message, to, occasion as u8)).or_insert((occasion, Vec::new()));
        group.1.push(report);
    }
    let mut due = Vec::with_capacity(groups.len());
    let mut room = WHOLE;
    for ((id, to, _), (occasion, recipients)) in groups {
        let Some(message) = effects.messages.get(&id) else { continue };
        let Ok(to) = to.parse::<Address>() else { continue };
        let full = returns_all(config, message, occasion) && message.size <= room;
        room -= if full { message.size } else { 0 };
        due.push(Due { message, to, occasion, recipients, full });
    }
    let contents = contents(connection, &due).await?;
    let mut notices = Vec::with_capacity(due.len());
    let mut events: Vec<(MessageId, Event)> = Vec::with_capacity(due.len());
    for due in due {
        let id = MessageId::generate();
        let about = due.message.id;
        let event = trace::event(effects.now, EventKind::Notice);
        events.push((about, Event { recipient: due.to.to_string(), detail: id.to_string(), ..event }));
        let content = contents.get(&(about, due.full)).cloned().unwrap_or_default();
        notices.push(notice(config, id, due, content, effects.now));
    }
    for (about, event) in events {
        effects.event(about, event);
    }
    Ok(notices)
}

struct Due<'a> {
    message: &'a Message,
    to: Address,
    occasion: Occasion,
    recipients: Vec<RecipientReport>,
    /// The whole message comes back.
    full: bool,
}

/// RFC 3461 §4.3: RET is for failures; all other notices bring back the headers.
fn returns_all(config: &Config, message: &Message, occasion: Occasion) -> bool {
    let most = match message.ret {
        _ if occasion != Occasion::Failure => return false,
        Some(Ret::Headers) => return false,
        Some(Ret::Full) => config.notice.return_at_most,
        None => config.notice.return_full_up_to,
    };
    message.size <= most.as_u64()
}

/// What comes back of each message: all of it, or enough for its headers.
async fn contents(
    connection: &mut PgConnection,
    due: &[Due<'_>],
) -> sqlx::Result<HashMap<(MessageId, bool), Bytes>> {
    let ids = |full: bool| -> Vec<MessageId> {
        due.iter().filter(|d| d.full == full).map(|d| d.message.id).collect()
    };
    let mut contents = HashMap::new();
    let heads = ids(false);
    if !heads.is_empty() {
        let heads = posthorn_content::read_prefixes(connection, &heads, HEADERS).await?;
        contents.extend(heads.into_iter().map(|(id, content)| ((id, false), content)));
    }
    // One after the other: they may be large.
    for id in ids(true) {
        if let Some(content) = posthorn_content::read_whole(connection, id).await? {
            contents.insert((id, true), content);
        }
    }
    Ok(contents)
}

fn notice(config: &Config, id: MessageId, due: Due<'_>, content: Bytes, now: OffsetDateTime) -> Incoming {
    let message = due.message;
    let international = !due.to.is_ascii() || due.recipients.iter().any(|r| !r.final_recipient.is_ascii());
    // ENVID belongs to the sender who gave it, not to the owner of a list.
    let to_first = due.to.to_string() == message.sender;
    let report = Report {
        from: config.mailer_daemon(),
        to: due.to.clone(),
        message_id: format!("{id}@{}", config.hostname),
        date: now,
        reporting_mta: config.hostname.clone(),
        arrival_date: Some(message.received_at),
        envelope_id: message.envelope_id.clone().filter(|_| to_first),
        about: Some(message.id),
        recipients: due.recipients,
        returned: if due.full {
            Returned::Full(content.to_vec())
        } else {
            Returned::Headers(content.to_vec())
        },
    };
    let mut envelope = Envelope::new(ReversePath::Null, vec![Recipient::new(due.to)]);
    envelope.body = report.body();
    envelope.smtputf8 = international;
    metrics::counter!("posthorn_queue_notices_total", "occasion" => due.occasion.name()).increment(1);
    Incoming {
        id,
        envelope,
        origin: Origin {
            protocol: "INTERNAL".into(),
            tenant_id: message.origin.tenant_id.clone(),
            ..Default::default()
        },
        received_at: now,
        traceparent: message.traceparent.clone(),
        key: None,
        content: Content::Here(report.to_bytes().into()),
        repeated: false,
        routed: Vec::new(),
    }
}
