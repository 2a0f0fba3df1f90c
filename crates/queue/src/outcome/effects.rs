//! What a batch of outcomes does to the ledger, gathered before any of it is written. No I/O here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use posthorn_api::timestamp;
use posthorn_api::trace::v1::{Event, EventKind};
use posthorn_dsn::{Action, RecipientReport};
use posthorn_mail::{Address, EnhancedStatus, MessageId, Status};
use time::OffsetDateTime;

use crate::message::{Change, Moment, Place, Recipient, State};
use crate::notice::{Occasion, wanted};
use crate::retry::Policy;
use crate::schedule::{Item, Key, Kind, Lane};
use crate::spool::Message;
use crate::trace;

/// The ledger's part that a transaction works on, and all that is to be done about it.
#[derive(Debug)]
pub(crate) struct Effects<'a> {
    pub(crate) now: OffsetDateTime,
    policy: &'a Policy,
    pub(crate) messages: HashMap<MessageId, Message>,
    /// Messages whose own row changes.
    touched: HashSet<MessageId>,
    pub(crate) changed: HashMap<(MessageId, u32), Recipient>,
    pub(crate) new: Vec<(MessageId, Recipient)>,
    pub(crate) events: BTreeMap<MessageId, Vec<Event>>,
    pub(crate) tell: Vec<Tell>,
    /// Work that comes up elsewhere: in other lanes.
    pub(crate) adds: Vec<(Kind, Item, OffsetDateTime)>,
    pub(crate) learnt: BTreeMap<Lane, Learnt>,
}

/// Something that a sender is to be told.
#[derive(Clone, Debug)]
pub(crate) struct Tell {
    pub(crate) message: MessageId,
    /// The sender of this copy.
    pub(crate) to: String,
    pub(crate) occasion: Occasion,
    pub(crate) report: RecipientReport,
}

/// What a batch says of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Learnt {
    /// It cannot be reached; the first of those it failed for is tried again then.
    pub(crate) unavailable: Option<OffsetDateTime>,
    pub(crate) spoke: bool,
}

impl<'a> Effects<'a> {
    pub(crate) fn new(
        messages: HashMap<MessageId, Message>,
        policy: &'a Policy,
        now: OffsetDateTime,
    ) -> Self {
        Self {
            now,
            policy,
            messages,
            touched: HashSet::new(),
            changed: HashMap::new(),
            new: Vec::new(),
            events: BTreeMap::new(),
            tell: Vec::new(),
            adds: Vec::new(),
            learnt: BTreeMap::new(),
        }
    }

    /// The moment of an outcome of a message.
    pub(crate) fn moment(&self, id: MessageId, jitter: f64) -> Option<Moment<'a>> {
        let message = self.messages.get(&id)?;
        Some(Moment { now: self.now, expires_at: message.expires_at, jitter, policy: self.policy })
    }

    pub(crate) fn event(&mut self, id: MessageId, event: Event) {
        self.events.entry(id).or_default().push(event);
    }

    /// A recipient's attempt is over: what follows for the trace, the sender and the message.
    pub(crate) fn after(&mut self, id: MessageId, recipient: Recipient, change: &Change) {
        let kind = match change {
            Change::Nothing => return,
            Change::Delivered { .. } => EventKind::Delivered,
            Change::Deferred(_) => EventKind::Deferred,
            Change::Uncertain(_) => EventKind::Uncertain,
            Change::Rerouted(_) => EventKind::Deferred,
            Change::Failed | Change::GaveUp => EventKind::Failed,
        };
        let mut event = trace::of_recipient(self.now, kind, &recipient);
        match change {
            Change::Deferred(at) | Change::Uncertain(at) | Change::Rerouted(at) => {
                event.next_attempt_at = Some(timestamp(*at));
            }
            Change::GaveUp => event.detail = "given up".into(),
            _ => {}
        }
        self.event(id, event);
        match change {
            Change::Delivered { passed_on } => self.delivered(id, &recipient, *passed_on),
            Change::Failed | Change::GaveUp => self.failed(id, &recipient),
            Change::Rerouted(at) => {
                if matches!(recipient.place, Place::Unknown) {
                    self.touch(id, |message| message.maybe_local = true);
                    self.add(id, Kind::Route, Lane::ROUTE, *at);
                }
            }
            _ => {}
        }
        self.change(id, recipient);
    }

    /// Writes a recipient's new state down.
    pub(crate) fn change(&mut self, id: MessageId, recipient: Recipient) {
        if !recipient.state.is_waiting() {
            self.touch(id, |message| message.pending = message.pending.saturating_sub(1));
        }
        self.changed.insert((id, recipient.no), recipient);
    }

    /// A recipient that has come up.
    pub(crate) fn insert(&mut self, id: MessageId, recipient: Recipient) {
        self.touch(id, |message| {
            message.recipients += 1;
            message.pending += u32::from(recipient.state.is_waiting());
        });
        self.new.push((id, recipient));
    }

    /// Work for a recipient that waits in another lane from now on.
    pub(crate) fn add(&mut self, id: MessageId, kind: Kind, lane: Lane, at: OffsetDateTime) {
        if let Some(message) = self.messages.get(&id) {
            self.adds.push((kind, Item { key: Key { message: id, lane }, flow: message.flow }, at));
        }
    }

    pub(crate) fn touch(&mut self, id: MessageId, change: impl FnOnce(&mut Message)) {
        if let Some(message) = self.messages.get_mut(&id) {
            change(message);
            self.touched.insert(id);
        }
    }

    /// Where recipients have come to be transferred: destinations, and the domain that each stands for.
    pub(crate) fn remote(&self) -> (Vec<&str>, Vec<&str>) {
        let all = self.changed.values().chain(self.new.iter().map(|(_, recipient)| recipient));
        let remote = all.filter(|recipient| recipient.attempts == 0 && recipient.state == State::Remote);
        let mut places: Vec<_> = remote
            .filter_map(|recipient| match &recipient.place {
                Place::Remote(target) => Some((target.destination.as_str(), target.domain.as_str())),
                Place::Local(_) | Place::Unknown => None,
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().unzip()
    }

    /// A destination said something, or could not be reached.
    pub(crate) fn learn(&mut self, lane: Lane, unavailable: Option<OffsetDateTime>) {
        let learnt = self.learnt.entry(lane).or_default();
        match unavailable {
            None => learnt.spoke = true,
            Some(at) => learnt.unavailable = Some(learnt.unavailable.map_or(at, |known| known.min(at))),
        }
    }

    /// RFC 3461 §5.2.2, §5.2.3: success is told by who delivers, or by who hands on to a server that will not tell.
    fn delivered(&mut self, id: MessageId, recipient: &Recipient, passed_on: bool) {
        let action = match recipient.kind() {
            Kind::Remote if passed_on => return,
            Kind::Remote => Action::Relayed,
            _ => Action::Delivered,
        };
        self.tell(id, recipient, Occasion::Success, action);
    }

    /// A recipient has failed: its sender is told.
    pub(crate) fn failed(&mut self, id: MessageId, recipient: &Recipient) {
        self.tell(id, recipient, Occasion::Failure, Action::Failed);
    }

    /// Tells the sender of a recipient's copy, if it wants to hear it. Never the null sender (RFC 5321 §4.5.5).
    pub(crate) fn tell(&mut self, id: MessageId, recipient: &Recipient, occasion: Occasion, action: Action) {
        let Some(message) = self.messages.get(&id) else { return };
        let to = recipient.sender.as_ref().unwrap_or(&message.sender);
        if to.is_empty() || !wanted(recipient.notify, occasion) {
            return;
        }
        if let Some(mut report) = report(message, recipient, action) {
            let (next, end) = (recipient.next_attempt_at, message.expires_at);
            let last = || next.map_or(end, |next| self.policy.last(recipient.attempts, next, end));
            report.will_retry_until = (action == Action::Delayed).then(last);
            self.tell.push(Tell { message: id, to: to.clone(), occasion, report });
        }
    }

    /// Messages of which nothing is owed any more.
    pub(crate) fn ended(&self) -> Vec<MessageId> {
        self.touched.iter().filter(|id| self.messages[*id].pending == 0).copied().collect()
    }

    /// Messages whose row changes and that go on.
    pub(crate) fn going_on(&self) -> Vec<&Message> {
        self.touched.iter().map(|id| &self.messages[id]).filter(|message| message.pending > 0).collect()
    }

    /// The changed recipients of messages that go on.
    pub(crate) fn updates(&self) -> Vec<(MessageId, &Recipient)> {
        let goes_on = |id: &MessageId| self.messages.get(id).is_some_and(|message| message.pending > 0);
        self.changed.iter().filter(|((id, _), _)| goes_on(id)).map(|((id, _), r)| (*id, r)).collect()
    }

    /// The new recipients of messages that go on.
    pub(crate) fn inserts(&self) -> Vec<(MessageId, &Recipient)> {
        let goes_on = |id: &MessageId| self.messages.get(id).is_some_and(|message| message.pending > 0);
        self.new.iter().filter(|(id, _)| goes_on(id)).map(|(id, r)| (*id, r)).collect()
    }

    /// The states that are not written because their messages end.
    pub(crate) fn unwritten(&self) -> HashMap<(MessageId, u32), State> {
        self.changed.iter().map(|(key, recipient)| (*key, recipient.state)).collect()
    }

    /// When the work on an item comes again; `None`: never. `waiting` are the recipients it was for, as they were.
    pub(crate) fn due_again(&self, key: Key, waiting: &[Recipient]) -> Option<OffsetDateTime> {
        let again = |was: &Recipient| match self.changed.get(&(key.message, was.no)) {
            Some(now) if crate::spool::insert::lane_of(now) == key.lane => now.next_attempt_at,
            Some(_) => None,
            // The worker said nothing of it: it may have joined meanwhile. Not at once, lest a worker that says
            // nothing is given the same over and over.
            None => was.next_attempt_at.map(|at| at.max(self.now + Duration::from_secs(1))),
        };
        waiting.iter().filter_map(again).min()
    }
}

/// What a notice says of a recipient. After transient failures the status stays that of the last words, 4.y.z, with
/// the action "failed" (RFC 3464 §2.3.3, §2.3.4; as Postfix does): the code says why, the action that it is over.
fn report(message: &Message, recipient: &Recipient, action: Action) -> Option<RecipientReport> {
    let Ok(address) = recipient.address.parse::<Address>() else {
        tracing::error!(message_id = %message.id, "a recipient in the spool is no address: nobody can be told");
        return None;
    };
    let last = recipient.last.as_ref();
    let success = Status::new(250, EnhancedStatus::new(2, 0, 0), "");
    let status = match (action, last) {
        (Action::Expanded, _) | (_, None) => success.enhanced(),
        (_, Some(last)) => last.status.enhanced(),
    };
    let status =
        if action == Action::Delayed && last.is_none() { EnhancedStatus::new(4, 4, 7) } else { status };
    Some(RecipientReport {
        original_recipient: recipient.original.clone(),
        diagnostic: last.filter(|_| action != Action::Expanded).map(|last| last.status.clone()),
        remote_mta: last.and_then(|last| last.server.as_ref()).map(|server| server.host.clone()),
        last_attempt: last.map(|last| last.at),
        ..RecipientReport::new(address, action, status)
    })
}
