//! What the router's decision does to a message. No I/O here.

use std::collections::HashSet;

use posthorn_api::trace::v1::EventKind;
use posthorn_api::work::v1::{RouteResult, RouteTarget, route_target::Decision};
use posthorn_dsn::Action;
use posthorn_mail::{EnhancedStatus, MessageId, Notify, Status};

use super::effects::Effects;
use crate::message::{Change, Moment, Place, Recipient, State};
use crate::notice::Occasion;
use crate::schedule::{Key, Kind, Lane};
use crate::trace;

/// A decision about one recipient, read from the wire.
#[derive(Clone, Debug)]
pub(crate) struct Routed {
    pub(crate) no: u32,
    pub(crate) targets: Vec<Target>,
}

/// One of those a recipient came to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) reason: String,
    pub(crate) sender: Option<String>,
    pub(crate) verdict: Verdict,
}

/// What was decided about a target.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Place(Place),
    Fail(Status),
    Later(Status),
}

impl Routed {
    /// Reads a result from the wire; INVALID_ARGUMENT when something is missing.
    pub(crate) fn read(result: RouteResult) -> Result<Self, tonic::Status> {
        let targets = result.targets.into_iter().map(read_target).collect::<Result<Vec<_>, _>>()?;
        if targets.is_empty() {
            return Err(posthorn_api::error::invalid("route.results.targets", "must not be empty"));
        }
        Ok(Self { no: result.recipient_no, targets })
    }
}

fn read_target(target: RouteTarget) -> Result<Target, tonic::Status> {
    let verdict = match target.decision {
        None => return Err(posthorn_api::error::invalid("route.results.targets.decision", "is missing")),
        Some(Decision::Local(local)) => Verdict::Place(Place::Local(local)),
        Some(Decision::Remote(remote)) => Verdict::Place(Place::Remote(remote)),
        Some(Decision::Fail(status)) => Verdict::Fail(status.try_into()?),
        Some(Decision::Later(status)) => Verdict::Later(status.try_into()?),
    };
    Ok(Target { address: target.address, reason: target.reason, sender: target.sender, verdict })
}

/// Applies the decisions about an item's recipients. `routed` are the addresses that the message goes to already; a
/// second copy to the same address is not made.
pub(crate) fn apply(
    effects: &mut Effects<'_>,
    key: Key,
    waiting: &[Recipient],
    results: Vec<Routed>,
    routed: &mut HashSet<(MessageId, String)>,
    context: &Context,
) {
    let Some(moment) = effects.moment(key.message, context.jitter) else { return };
    for result in results {
        let Some(recipient) = waiting.iter().find(|r| r.no == result.no) else { continue };
        if effects.changed.contains_key(&(key.message, result.no)) {
            continue;
        }
        let recipient = recipient.clone();
        let in_place = result.targets.len() == 1 && result.targets[0].address == recipient.address;
        if in_place {
            let target = result.targets.into_iter().next().expect("there is one");
            put(effects, key.message, recipient, target, routed, &moment);
        } else {
            expand(effects, key.message, recipient, result.targets, routed, &moment, context);
        }
    }
}

/// What a decision goes by beside the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) jitter: f64,
    pub(crate) max_recipients: usize,
}

/// The recipient itself is what it came to.
fn put(
    effects: &mut Effects<'_>,
    id: MessageId,
    mut recipient: Recipient,
    target: Target,
    routed: &mut HashSet<(MessageId, String)>,
    moment: &Moment<'_>,
) {
    if target.sender.is_some() {
        recipient.sender = target.sender;
    }
    match target.verdict {
        Verdict::Place(place) => {
            if !routed.insert((id, recipient.address.clone())) {
                recipient.end(State::Expanded);
                say(effects, id, &recipient, EventKind::Expanded, "the message goes there already".into());
                effects.change(id, recipient);
                return;
            }
            let (kind, lane, detail) = way(&place, &target.reason);
            recipient.place(place, moment.now);
            say(effects, id, &recipient, EventKind::Routed, detail);
            effects.add(id, kind, lane, moment.now);
            effects.change(id, recipient);
        }
        Verdict::Fail(status) => {
            let change = recipient.refuse(status, moment.now);
            effects.after(id, recipient, &change);
        }
        Verdict::Later(status) => {
            let change = recipient.route_later(status, moment);
            effects.after(id, recipient, &change);
        }
    }
}

/// The recipient is replaced by those it came to.
fn expand(
    effects: &mut Effects<'_>,
    id: MessageId,
    mut recipient: Recipient,
    targets: Vec<Target>,
    routed: &mut HashSet<(MessageId, String)>,
    moment: &Moment<'_>,
    context: &Context,
) {
    let mut next = effects.messages.get(&id).map_or(0, |message| message.recipients);
    if next as usize + targets.len() > context.max_recipients {
        // RFC 3463 §3.5: X.4.6 is a routing loop; this is what one looks like.
        let status = Status::new(554, EnhancedStatus::new(5, 4, 6), "expands to too many recipients");
        let change = recipient.refuse(status, moment.now);
        effects.after(id, recipient, &change);
        return;
    }
    let several = targets.len() > 1;
    let to_list = targets.iter().any(|target| target.sender.is_some());
    recipient.end(State::Expanded);
    say(effects, id, &recipient, EventKind::Expanded, ways(&targets));
    // RFC 3461 §5.2.7.2, §5.2.7.3: success for several is told here and now; for the one behind an alias it is told
    // by who delivers to it.
    if several || to_list {
        effects.tell(id, &recipient, Occasion::Success, Action::Expanded);
    }
    for target in targets {
        // What has failed or waits is not there already: only what has a place is.
        if matches!(target.verdict, Verdict::Place(_)) && !routed.insert((id, target.address.clone())) {
            continue;
        }
        next += 1;
        child(effects, id, &recipient, next, several, target, moment);
    }
    effects.change(id, recipient);
}

fn child(
    effects: &mut Effects<'_>,
    id: MessageId,
    parent: &Recipient,
    no: u32,
    several: bool,
    target: Target,
    moment: &Moment<'_>,
) {
    let mut child = Recipient::fresh(no, target.address, moment.now);
    child.parent = Some(parent.no);
    if target.sender.is_some() {
        // RFC 3461 §5.2.7.3: a list is a sender of its own; what the first one asked for ends with it.
        child.sender = target.sender;
    } else {
        child.sender = parent.sender.clone();
        child.original =
            Some(parent.original.clone().unwrap_or_else(|| format!("rfc822;{}", parent.address)));
        child.notify = if several { without_success(parent.notify) } else { parent.notify };
    }
    let change = match target.verdict {
        Verdict::Place(place) => {
            let (kind, lane, detail) = way(&place, &target.reason);
            child.place(place, moment.now);
            say(effects, id, &child, EventKind::Routed, detail);
            effects.add(id, kind, lane, moment.now);
            Change::Nothing
        }
        Verdict::Fail(status) => child.refuse(status, moment.now),
        Verdict::Later(status) => child.route_later(status, moment),
    };
    match change {
        Change::Failed | Change::GaveUp => {
            say(effects, id, &child, EventKind::Failed, target.reason);
            effects.failed(id, &child);
        }
        Change::Deferred(at) => {
            say(effects, id, &child, EventKind::Deferred, target.reason);
            effects.add(id, Kind::Route, Lane::ROUTE, at);
        }
        _ => {}
    }
    effects.insert(id, child);
}

/// RFC 3461 §5.2.7.2: for several recipients SUCCESS is not asked for again.
fn without_success(notify: Option<Notify>) -> Option<Notify> {
    match notify {
        Some(Notify::On { success: true, failure: false, delay: false }) => Some(Notify::Never),
        Some(Notify::On { failure, delay, .. }) => Some(Notify::On { success: false, failure, delay }),
        other => other,
    }
}

fn say(effects: &mut Effects<'_>, id: MessageId, recipient: &Recipient, kind: EventKind, detail: String) {
    let event = trace::of_recipient(id, effects.now, kind, recipient);
    effects.event(id, posthorn_api::trace::v1::Event { detail, ..event });
}

/// Where a place's work waits, and its description for people.
fn way(place: &Place, reason: &str) -> (Kind, Lane, String) {
    let (kind, lane, to) = match place {
        Place::Remote(target) => {
            (Kind::Remote, Lane::remote(&target.destination), format!("to {}", target.destination))
        }
        _ => (Kind::Local, Lane::LOCAL, "to a mailbox here".to_owned()),
    };
    (kind, lane, if reason.is_empty() { to } else { format!("{to}: {reason}") })
}

/// What an expansion came to, at most the first ten of it.
fn ways(targets: &[Target]) -> String {
    let mut text = targets.iter().take(10).map(|t| t.address.as_str()).collect::<Vec<_>>().join(", ");
    if targets.len() > 10 {
        text.push_str(&format!(" and {} more", targets.len() - 10));
    }
    text
}
