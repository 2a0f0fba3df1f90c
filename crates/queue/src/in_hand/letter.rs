//! A message in hand, and what becomes of it by what its workers say.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use posthorn_api::trace::v1::{Event, EventKind};
use posthorn_mail::Outcome;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::message::{Change, Moment, Place, Recipient};
use crate::notice::{Occasion, wanted};
use crate::outcome::route::{Routed, Verdict, way};
use crate::schedule::{Item, Key, Kind, Lane, Token};
use crate::spool::Message;
use crate::trace;

/// A message in hand.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) message: Message,
    /// As the ledger will have them when all has gone the plain way.
    pub(super) recipients: Vec<Recipient>,
    /// What the router said, and under which token.
    pub(crate) routed: Option<(Token, Vec<Routed>)>,
    /// What happened since it was accepted.
    pub(crate) events: Vec<Event>,
    /// The worker that has it, or had it last.
    pub(super) worker: u64,
    /// Since when it is in hand.
    pub(super) since: Instant,
    /// The schedule knows of it.
    pub(crate) is_scheduled: bool,
    /// Waiting: since when. Given: until when it is leased.
    pub(super) time: Instant,
    /// Whether it is in the ledger by now.
    pub(super) kept: Kept,
    /// Its header section, where it may go to its mailbox early.
    pub(crate) header: Bytes,
}

/// Tells when messages are in the ledger. Dropped by who writes them before it has said so: they are not.
pub(crate) type Kept = watch::Receiver<bool>;

/// What follows from a worker's report.
#[derive(Debug)]
pub(crate) enum Next {
    /// It is to be given to a local-delivery.
    Deliver,
    /// All have it; it ends.
    End,
    /// It does not go the plain way: the ledger is to know.
    Leave,
}

impl Letter {
    /// A message that is being taken in, with its fresh recipients.
    pub(crate) fn new(message: Message, recipients: Vec<Recipient>, kept: Kept, now: Instant) -> Self {
        let (routed, events) = (None, Vec::new());
        Self {
            message,
            recipients,
            routed,
            events,
            worker: 0,
            since: now,
            is_scheduled: false,
            time: now,
            kept,
            header: Bytes::new(),
        }
    }

    /// Whether it is in the ledger.
    pub(super) fn is_kept(&self) -> bool {
        *self.kept.borrow()
    }

    /// What stands for it in the schedule.
    pub(crate) fn item(&self) -> Item {
        Item { key: Key { message: self.message.id, lane: Lane::ROUTE }, flow: self.message.flow }
    }

    /// The router's decisions. The plain way: each recipient is itself a mailbox here, and nobody wants to be told.
    pub(crate) fn route(&mut self, token: Token, results: Vec<Routed>, now: OffsetDateTime) -> Next {
        let said: HashMap<u32, &Routed> = results.iter().map(|result| (result.no, result)).collect();
        let places: Option<Vec<(&Place, &str)>> =
            self.recipients.iter().map(|recipient| plain(recipient, said.get(&recipient.no)?)).collect();
        if let Some(places) = places {
            for (recipient, (place, reason)) in self.recipients.iter_mut().zip(places) {
                recipient.place(place.clone(), now);
                let event = trace::of_recipient(now, EventKind::Routed, recipient);
                self.events.push(Event { detail: way(place, reason), ..event });
            }
        }
        self.routed = Some((token, results));
        if self.events.is_empty() { Next::Leave } else { Next::Deliver }
    }

    /// What the router had said of the recipients when the message came in: if that is the plain way, it is not asked again.
    pub(crate) fn take_along(&mut self, results: Vec<Routed>, now: OffsetDateTime) {
        let said = !results.is_empty();
        let token = Token::in_hand(Kind::Route, Lane::ROUTE);
        if said && matches!(self.route(token, results, now), Next::Leave) {
            self.routed = None;
        }
    }

    /// The outcomes of the delivery. The plain way: everyone has it.
    pub(crate) fn deliver(&mut self, outcomes: Vec<(u32, Outcome)>, moment: &Moment<'_>) -> Next {
        let mut outcomes: HashMap<u32, Outcome> = outcomes.into_iter().collect();
        let said = self.events.len();
        for recipient in &mut self.recipients {
            let Some(Outcome { verdict, remote }) = outcomes.remove(&recipient.no) else { break };
            let mut tried = recipient.clone();
            if !matches!(tried.tried(verdict, remote, moment), Change::Delivered { .. }) {
                break;
            }
            self.events.push(trace::of_recipient(moment.now, EventKind::Delivered, &tried));
        }
        if self.events.len() - said < self.recipients.len() {
            self.events.truncate(said);
            return Next::Leave;
        }
        self.events.push(trace::event(moment.now, EventKind::Ended));
        Next::End
    }
}

/// The mailbox that a recipient was found to be, and why.
fn plain<'a>(recipient: &Recipient, said: &'a Routed) -> Option<(&'a Place, &'a str)> {
    let [target] = &said.targets[..] else { return None };
    let Verdict::Place(place @ Place::Local(_)) = &target.verdict else { return None };
    let itself = target.address == recipient.address && target.sender.is_none();
    (itself && !wanted(recipient.notify, Occasion::Success)).then_some((place, &target.reason))
}
