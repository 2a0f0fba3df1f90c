//! The states of a recipient and their transitions.
//!
//! | state | who has it | what is owed | found so after a crash |
//! | --- | --- | --- | --- |
//! | (none) | the client: it has no `250` yet | nothing | an upload without a message is collected |
//! | `Fresh` | we, from the commit that precedes `250` on | a decision of the router | leased again when the lease ends; decided anew, nothing doubled |
//! | `Local` | we | a copy in the mailbox | leased again; delivery is idempotent by message, account and address |
//! | `Remote` | we | a transfer to the next server | leased again; sent twice only if it was sent in the moment before the crash |
//! | `Delivered` | the mailbox, or the next server from its `250` on | nothing | final; deleted with the message |
//! | `Failed` | the sender, to whom the notice is already on its way: written in the same transaction | nothing | final |
//! | `Expanded` | the recipients that it came to, written in the same transaction | nothing | final |
//!
//! The transitions; what is not in the table changes nothing, so that an outcome that comes late or twice does no harm:
//!
//! | from | event | to |
//! | --- | --- | --- |
//! | `Fresh` | routed to a mailbox here | `Local` |
//! | `Fresh` | routed to another server | `Remote` |
//! | `Fresh` | came to others | `Expanded` |
//! | `Fresh`, `Local`, `Remote` | refused for good | `Failed` |
//! | `Fresh`, `Remote` | not now, or uncertain | the same, later; `Failed` when it is enough |
//! | `Local` | not now | `Fresh`, later: the mailbox may have got more room, or have gone; `Failed` when it is enough |
//! | `Local`, `Remote` | taken | `Delivered` |
//! | `Local`, `Remote` | belongs elsewhere | `Fresh` |
//! | `Fresh`, `Local`, `Remote` | too old, or given up by the operator | `Failed` |
//!
//! A message ends, and leaves the tables, in the transaction in which its last recipient ends.

use std::time::Duration;

use posthorn_api::work::v1::{LocalTarget, RemoteTarget};
use posthorn_mail::{EnhancedStatus, Notify, RemoteServer, Status, Verdict};
use time::OffsetDateTime;

use crate::retry::{Miss, Next, Policy};
use crate::schedule::Kind;

/// Where a recipient stands. The numbers are those of the column `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Fresh = 0,
    Local = 1,
    Remote = 2,
    Delivered = 3,
    Failed = 4,
    Expanded = 5,
}

impl State {
    pub(crate) const ALL: [Self; 6] =
        [Self::Fresh, Self::Local, Self::Remote, Self::Delivered, Self::Failed, Self::Expanded];

    /// Something is owed to the recipient.
    pub(crate) fn is_waiting(self) -> bool {
        matches!(self, Self::Fresh | Self::Local | Self::Remote)
    }
}

/// Where the router has sent a recipient.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    Unknown,
    Local(LocalTarget),
    Remote(RemoteTarget),
}

/// The words of the last attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Words {
    pub(crate) status: Status,
    pub(crate) server: Option<RemoteServer>,
    pub(crate) at: OffsetDateTime,
}

/// A recipient of a message, as the ledger has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recipient {
    pub(crate) no: u32,
    pub(crate) address: String,
    pub(crate) notify: Option<Notify>,
    /// ORCPT, `type;address`.
    pub(crate) original: Option<String>,
    /// This copy's sender when not the message's.
    pub(crate) sender: Option<String>,
    /// The recipient that was expanded to this one.
    pub(crate) parent: Option<u32>,
    pub(crate) state: State,
    pub(crate) place: Place,
    pub(crate) attempts: u32,
    /// `None` once it has ended.
    pub(crate) next_attempt_at: Option<OffsetDateTime>,
    pub(crate) last: Option<Words>,
}

/// When a transition happens, and what it goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) now: OffsetDateTime,
    /// When the message is given up.
    pub(crate) expires_at: OffsetDateTime,
    /// 0.0 to 1.0.
    pub(crate) jitter: f64,
    pub(crate) policy: &'a Policy,
}

/// What an outcome did to a recipient.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// It has it. `passed_on`: the next server reports success from here on.
    Delivered { passed_on: bool },
    /// Tried again at that time.
    Deferred(OffsetDateTime),
    /// The same, though it may have arrived.
    Uncertain(OffsetDateTime),
    /// Decided anew at that time.
    Rerouted(OffsetDateTime),
    /// Refused for good.
    Failed,
    /// Put off once too often, or too late.
    GaveUp,
    /// It had ended, or the outcome was not for its state.
    Nothing,
}

impl Recipient {
    /// A recipient as it was handed in.
    pub(crate) fn fresh(no: u32, address: String, due: OffsetDateTime) -> Self {
        Self {
            no,
            address,
            notify: None,
            original: None,
            sender: None,
            parent: None,
            state: State::Fresh,
            place: Place::Unknown,
            attempts: 0,
            next_attempt_at: Some(due),
            last: None,
        }
    }

    /// Delivery was tried: what came of it.
    pub(crate) fn tried(
        &mut self,
        verdict: Verdict,
        server: Option<RemoteServer>,
        moment: &Moment<'_>,
    ) -> Change {
        if !matches!(self.state, State::Local | State::Remote) {
            return Change::Nothing;
        }
        match verdict {
            Verdict::Delivered { status, dsn_passed_on } => {
                self.count(status, server, moment.now);
                self.end(State::Delivered);
                Change::Delivered { passed_on: dsn_passed_on }
            }
            Verdict::Failed(status) => {
                self.count(status, server, moment.now);
                self.end(State::Failed);
                Change::Failed
            }
            // A mailbox may have got more room by then, or have gone: the router is asked anew.
            Verdict::Deferred { status, .. } if self.state == State::Local => {
                match self.missed(Miss::Deferred, status, server, moment) {
                    Change::Deferred(at) => self.route_anew(at),
                    other => other,
                }
            }
            Verdict::Deferred { status, .. } => self.missed(Miss::Deferred, status, server, moment),
            Verdict::Uncertain(status) => self.missed(Miss::Uncertain, status, server, moment),
            Verdict::Reroute(reason) => self.reroute(&reason, moment),
        }
    }

    /// The router could not decide now.
    pub(crate) fn route_later(&mut self, status: Status, moment: &Moment<'_>) -> Change {
        if self.state != State::Fresh {
            return Change::Nothing;
        }
        self.missed(Miss::Deferred, status, None, moment)
    }

    /// The router refused it.
    pub(crate) fn refuse(&mut self, status: Status, now: OffsetDateTime) -> Change {
        if self.state != State::Fresh {
            return Change::Nothing;
        }
        self.last = Some(Words { status, server: None, at: now });
        self.end(State::Failed);
        Change::Failed
    }

    /// The router has found its place, which may be reached at once: it stays due since when it was due (a time that
    /// does not change keeps the update off the index).
    pub(crate) fn place(&mut self, place: Place, now: OffsetDateTime) {
        self.state = match place {
            Place::Unknown => State::Fresh,
            Place::Local(_) => State::Local,
            Place::Remote(_) => State::Remote,
        };
        self.place = place;
        self.next_attempt_at = Some(self.next_attempt_at.map_or(now, |at| at.min(now)));
    }

    /// Whose work it was or is: that of the place the router sent it to.
    pub(crate) fn kind(&self) -> Kind {
        match self.place {
            Place::Unknown => Kind::Route,
            Place::Local(_) => Kind::Local,
            Place::Remote(_) => Kind::Remote,
        }
    }

    /// Nothing more is owed to it.
    pub(crate) fn end(&mut self, state: State) {
        debug_assert!(!state.is_waiting());
        self.state = state;
        self.next_attempt_at = None;
    }

    /// Its time is over without an attempt that could say so.
    pub(crate) fn expire(&mut self, now: OffsetDateTime) {
        if self.last.is_none() {
            // RFC 3463 §3.5: X.4.7 is "delivery time expired".
            let status =
                Status::new(450, EnhancedStatus::new(4, 4, 7), "delivery time expired without an attempt");
            self.last = Some(Words { status, server: None, at: now });
        }
        self.end(State::Failed);
    }

    /// An operator gives it up.
    pub(crate) fn give_up(&mut self, reason: &str, now: OffsetDateTime) {
        let status = Status::new(554, EnhancedStatus::new(5, 0, 0), reason);
        self.last = Some(Words { status, server: None, at: now });
        self.end(State::Failed);
    }

    fn missed(
        &mut self,
        miss: Miss,
        status: Status,
        server: Option<RemoteServer>,
        moment: &Moment<'_>,
    ) -> Change {
        self.count(status, server, moment.now);
        let left = Duration::try_from(moment.expires_at - moment.now).unwrap_or_default();
        match moment.policy.next(miss, self.attempts, left, moment.jitter) {
            Next::GiveUp => {
                self.end(State::Failed);
                Change::GaveUp
            }
            Next::After(pause) => {
                let at = moment.now + pause;
                self.next_attempt_at = Some(at);
                match miss {
                    Miss::Deferred => Change::Deferred(at),
                    Miss::Uncertain => Change::Uncertain(at),
                }
            }
        }
    }

    /// At once the first time; later as the policy says, should router and worker not agree.
    fn reroute(&mut self, reason: &str, moment: &Moment<'_>) -> Change {
        let status = Status::new(450, EnhancedStatus::new(4, 4, 0), format!("to be routed again: {reason}"));
        let first = self.attempts == 0;
        match self.missed(Miss::Deferred, status, None, moment) {
            Change::Deferred(at) => self.route_anew(if first { moment.now } else { at }),
            other => other,
        }
    }

    fn route_anew(&mut self, at: OffsetDateTime) -> Change {
        self.place(Place::Unknown, at);
        self.next_attempt_at = Some(at);
        Change::Rerouted(at)
    }

    fn count(&mut self, status: Status, server: Option<RemoteServer>, at: OffsetDateTime) {
        self.attempts += 1;
        self.last = Some(Words { status, server, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn policy() -> Policy {
        Policy { schedule: vec![Duration::from_secs(60)], uncertain: Duration::from_secs(900), attempts: 0 }
    }

    fn moment(policy: &Policy, left: u64) -> Moment<'_> {
        Moment { now: NOW, expires_at: NOW + Duration::from_secs(left), jitter: 0.5, policy }
    }

    fn recipient(state: State) -> Recipient {
        let mut recipient = Recipient::fresh(1, "a@example.net".into(), NOW);
        recipient.state = state;
        recipient.next_attempt_at = state.is_waiting().then_some(NOW);
        recipient
    }

    fn status(code: u16) -> Status {
        Status::received(code, None, "words").unwrap()
    }

    fn deferred() -> Verdict {
        Verdict::Deferred { status: status(451), destination_unavailable: false }
    }

    fn delivered() -> Verdict {
        Verdict::Delivered { status: status(250), dsn_passed_on: false }
    }

    #[test]
    fn attempts_lead_where_the_table_says() {
        use State::{Delivered, Expanded, Failed, Fresh, Local, Remote};
        let policy = policy();
        let at = |seconds| NOW + Duration::from_secs(seconds);
        for (from, verdict, left, change, to) in [
            (Local, delivered(), 100, Change::Delivered { passed_on: false }, Delivered),
            (Remote, delivered(), 0, Change::Delivered { passed_on: false }, Delivered),
            (Remote, Verdict::Failed(status(550)), 100, Change::Failed, Failed),
            (Remote, deferred(), 100, Change::Deferred(at(60)), Remote),
            (Local, deferred(), 30, Change::Rerouted(at(30)), Fresh),
            (Local, deferred(), 0, Change::GaveUp, Failed),
            (Remote, deferred(), 0, Change::GaveUp, Failed),
            (Remote, Verdict::Uncertain(status(451)), 9999, Change::Uncertain(at(900)), Remote),
            (Remote, Verdict::Reroute("moved".into()), 100, Change::Rerouted(NOW), Fresh),
            (Fresh, delivered(), 100, Change::Nothing, Fresh),
            (Delivered, Verdict::Failed(status(550)), 100, Change::Nothing, Delivered),
            (Failed, delivered(), 100, Change::Nothing, Failed),
            (Expanded, deferred(), 100, Change::Nothing, Expanded),
        ] {
            let mut recipient = recipient(from);
            let done = recipient.tried(verdict.clone(), None, &moment(&policy, left));
            assert_eq!((done, recipient.state), (change, to), "{from:?} {verdict:?}");
            assert_eq!(recipient.next_attempt_at.is_some(), recipient.state.is_waiting());
        }
    }

    #[test]
    fn routing_leads_where_the_table_says() {
        let policy = policy();
        for state in State::ALL {
            let fresh = state == State::Fresh;
            let mut later = recipient(state);
            let change = later.route_later(status(451), &moment(&policy, 100));
            assert_eq!((change != Change::Nothing, later.state), (fresh, state));
            let mut refused = recipient(state);
            let change = refused.refuse(status(550), NOW);
            assert_eq!(change, if fresh { Change::Failed } else { Change::Nothing });
            assert_eq!(refused.state, if fresh { State::Failed } else { state });
        }
    }

    #[test]
    fn router_and_worker_that_disagree_are_slowed_down() {
        let policy = policy();
        let mut recipient = recipient(State::Remote);
        let reroute = || Verdict::Reroute("no".into());
        assert_eq!(recipient.tried(reroute(), None, &moment(&policy, 1000)), Change::Rerouted(NOW));
        recipient.place(Place::Remote(RemoteTarget::default()), NOW);
        let later = NOW + Duration::from_secs(60);
        assert_eq!(recipient.tried(reroute(), None, &moment(&policy, 1000)), Change::Rerouted(later));
    }

    #[test]
    fn the_last_words_are_kept_when_the_time_is_over() {
        let policy = policy();
        let mut tried = recipient(State::Remote);
        tried.tried(deferred(), None, &moment(&policy, 100));
        tried.expire(NOW);
        assert_eq!(tried.last.unwrap().status, status(451));
        let mut untried = recipient(State::Remote);
        untried.expire(NOW);
        assert_eq!(untried.last.unwrap().status.enhanced().to_string(), "4.4.7");
    }
}
