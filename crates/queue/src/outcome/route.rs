//! What the router's decision does to a message. No I/O here.

use std::collections::HashSet;

use posthorn_api::trace::v1::{Event, EventKind};
use posthorn_api::work::v1::{RouteResult, RouteTarget, route_target::Decision};
use posthorn_dsn::Action;
use posthorn_mail::{EnhancedStatus, MessageId, Notify, Status};
use time::OffsetDateTime;

use super::effects::Effects;
use crate::message::{Change, Moment, Place, Recipient, State};
use crate::notice::{Occasion, wanted};
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

/// The decisions about the messages of a batch, on their way into the ledger.
pub(crate) struct Routing<'e, 'p> {
    pub(crate) effects: &'e mut Effects<'p>,
    /// The addresses that the messages go to already: a second copy to the same address is not made.
    pub(crate) routed: HashSet<(MessageId, String)>,
    /// The most recipients of a message.
    pub(crate) max_recipients: usize,
}

/// What became of a target that stands for a recipient, or is the recipient itself.
enum Fate {
    Waits(Kind, Lane),
    After(Change),
}

impl Routing<'_, '_> {
    /// Applies the decisions about an item's recipients; those that do not wait for one are passed over.
    pub(crate) fn apply(&mut self, key: Key, waiting: &[Recipient], results: Vec<Routed>, jitter: f64) {
        let Some(moment) = self.effects.moment(key.message, jitter) else { return };
        let asked = |result: Routed| Some((waiting.iter().find(|r| r.no == result.no)?, result));
        let mut results: Vec<_> = results.into_iter().filter_map(asked).collect();
        // Of several that come to the same address the first one's copy is made.
        results.sort_by_key(|(recipient, result)| hears_less(recipient, result));
        for (recipient, mut result) in results {
            if self.effects.changed.contains_key(&(key.message, result.no)) {
                continue;
            }
            let recipient = recipient.clone();
            match result.targets.pop_if(|target| target.address == recipient.address) {
                Some(target) if result.targets.is_empty() => {
                    self.put(key.message, recipient, target, &moment)
                }
                target => {
                    result.targets.extend(target);
                    self.expand(key.message, recipient, result.targets, &moment);
                }
            }
        }
    }

    /// The recipient itself is what it came to.
    fn put(&mut self, id: MessageId, mut recipient: Recipient, target: Target, moment: &Moment<'_>) {
        if target.sender.is_some() {
            recipient.sender = target.sender;
        }
        if matches!(target.verdict, Verdict::Place(_)) && !self.routed.insert((id, target.address)) {
            recipient.end(State::Expanded);
            self.say(id, &recipient, EventKind::Expanded, "the message goes there already".into());
            return self.effects.change(id, recipient);
        }
        match decide(&mut recipient, target.verdict, moment) {
            Fate::Waits(kind, lane) => {
                let detail = way(&recipient.place, &target.reason);
                self.say(id, &recipient, EventKind::Routed, detail);
                self.effects.add(id, kind, lane, moment.now);
                self.effects.change(id, recipient);
            }
            Fate::After(change) => self.effects.after(id, recipient, &change),
        }
    }

    /// The recipient is replaced by those it came to.
    fn expand(&mut self, id: MessageId, mut recipient: Recipient, targets: Vec<Target>, moment: &Moment<'_>) {
        let news = targets.iter().filter(|target| !self.goes_there(id, target)).count();
        if self.so_far(id) as usize + news > self.max_recipients {
            // RFC 3463 §3.5: X.4.6 is a routing loop; this is what one looks like.
            let status = Status::new(554, EnhancedStatus::new(5, 4, 6), "expands to too many recipients");
            let change = recipient.refuse(status, moment.now);
            return self.effects.after(id, recipient, &change);
        }
        let several = targets.len() > 1;
        let to_list = targets.iter().any(|target| target.sender.is_some());
        recipient.end(State::Expanded);
        self.say(id, &recipient, EventKind::Expanded, ways(&targets));
        // RFC 3461 §5.2.7.2, §5.2.7.3: success for several is told here and now, and a list has it with that; for the one
        // behind an alias it is told by who delivers to it.
        if several || to_list {
            let action = if to_list { Action::Delivered } else { Action::Expanded };
            self.effects.tell(id, &recipient, Occasion::Success, action);
        }
        for target in targets {
            if self.goes_there(id, &target) {
                continue;
            }
            if matches!(target.verdict, Verdict::Place(_)) {
                self.routed.insert((id, target.address.clone()));
            }
            // A number is used up only by whom is written down with it.
            let child = child(self.so_far(id) + 1, &recipient, &target, several, moment.now);
            self.begin(id, child, target, moment);
        }
        self.effects.change(id, recipient);
    }

    /// The recipients that the message has had.
    fn so_far(&self, id: MessageId) -> u32 {
        self.effects.messages.get(&id).map_or(0, |message| message.recipients)
    }

    /// Whether the message goes to a target already: only what has a place does, not what failed or waits.
    fn goes_there(&self, id: MessageId, target: &Target) -> bool {
        matches!(target.verdict, Verdict::Place(_)) && self.routed.contains(&(id, target.address.clone()))
    }

    /// A recipient that another came to.
    fn begin(&mut self, id: MessageId, mut child: Recipient, target: Target, moment: &Moment<'_>) {
        match decide(&mut child, target.verdict, moment) {
            Fate::Waits(kind, lane) => {
                let detail = way(&child.place, &target.reason);
                self.say(id, &child, EventKind::Routed, detail);
                self.effects.add(id, kind, lane, moment.now);
            }
            Fate::After(Change::Deferred(at)) => {
                self.say(id, &child, EventKind::Deferred, target.reason);
                self.effects.add(id, Kind::Route, Lane::ROUTE, at);
            }
            Fate::After(_) => {
                self.say(id, &child, EventKind::Failed, target.reason);
                self.effects.failed(id, &child);
            }
        }
        self.effects.insert(id, child);
    }

    fn say(&mut self, id: MessageId, recipient: &Recipient, kind: EventKind, detail: String) {
        let event = trace::of_recipient(self.effects.now, kind, recipient);
        self.effects.event(id, Event { detail, ..event });
    }
}

/// Whom the sender hears less of comes later: a list's owner is told of its members, and what was not asked for is not
/// told at all.
fn hears_less(recipient: &Recipient, result: &Routed) -> [bool; 3] {
    let of_list = recipient.sender.is_some() || result.targets.iter().any(|target| target.sender.is_some());
    let unasked = |occasion| !wanted(recipient.notify, occasion);
    [of_list, unasked(Occasion::Failure), unasked(Occasion::Success)]
}

/// Moves a recipient as was decided.
fn decide(recipient: &mut Recipient, verdict: Verdict, moment: &Moment<'_>) -> Fate {
    match verdict {
        Verdict::Place(place) => {
            let (kind, lane) = match &place {
                Place::Remote(target) => (Kind::Remote, Lane::remote(&target.destination)),
                _ => (Kind::Local, Lane::LOCAL),
            };
            recipient.place(place, moment.now);
            Fate::Waits(kind, lane)
        }
        Verdict::Fail(status) => Fate::After(recipient.refuse(status, moment.now)),
        Verdict::Later(status) => Fate::After(recipient.route_later(status, moment)),
    }
}

/// A recipient as it comes out of another, before anything is decided about it.
fn child(no: u32, parent: &Recipient, target: &Target, several: bool, now: OffsetDateTime) -> Recipient {
    let child = Recipient { parent: Some(parent.no), ..Recipient::fresh(no, target.address.clone(), now) };
    if target.sender.is_some() {
        // RFC 3461 §5.2.7.3: a list is a sender of its own; what the first one asked for ends with it.
        return Recipient { sender: target.sender.clone(), ..child };
    }
    Recipient {
        sender: parent.sender.clone(),
        original: Some(parent.original.clone().unwrap_or_else(|| format!("rfc822;{}", parent.address))),
        notify: if several { without_success(parent.notify) } else { parent.notify },
        ..child
    }
}

/// RFC 3461 §5.2.7.2: for several recipients SUCCESS is not asked for again.
fn without_success(notify: Option<Notify>) -> Option<Notify> {
    match notify {
        Some(Notify::On { success: true, failure: false, delay: false }) => Some(Notify::Never),
        Some(Notify::On { failure, delay, .. }) => Some(Notify::On { success: false, failure, delay }),
        other => other,
    }
}

/// Where a recipient goes and why, for people.
pub(crate) fn way(place: &Place, reason: &str) -> String {
    let to = match place {
        Place::Remote(target) => format!("to {}", target.destination),
        _ => "to a mailbox here".to_owned(),
    };
    if reason.is_empty() { to } else { format!("{to}: {reason}") }
}

/// What an expansion came to, at most the first ten of it.
fn ways(targets: &[Target]) -> String {
    let mut text = targets.iter().take(10).map(|t| t.address.as_str()).collect::<Vec<_>>().join(", ");
    if targets.len() > 10 {
        text.push_str(&format!(" and {} more", targets.len() - 10));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn success_is_not_asked_for_again_behind_an_alias_of_several() {
        let on = |success, failure, delay| Some(Notify::On { success, failure, delay });
        for (asked, passed) in [
            (None, None),
            (Some(Notify::Never), Some(Notify::Never)),
            (on(true, false, false), Some(Notify::Never)),
            (on(true, true, false), on(false, true, false)),
            (on(false, false, true), on(false, false, true)),
        ] {
            assert_eq!(without_success(asked), passed);
        }
    }

    #[test]
    fn decisions_about_unknown_messages_change_nothing() {
        let policy = crate::retry::Policy { schedule: vec![], uncertain: Default::default(), attempts: 0 };
        let mut effects = Effects::new(HashMap::new(), &policy, OffsetDateTime::UNIX_EPOCH);
        let mut routing = Routing { effects: &mut effects, routed: HashSet::new(), max_recipients: 10 };
        let key = Key { message: MessageId::generate(), lane: Lane::ROUTE };
        routing.apply(key, &[], vec![Routed { no: 1, targets: vec![] }], 0.5);
        assert!(effects.changed.is_empty() && effects.new.is_empty() && effects.adds.is_empty());
    }
}
