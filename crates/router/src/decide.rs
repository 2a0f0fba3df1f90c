//! The routing decision: where a message for one recipient goes. No I/O, no clock, no randomness.
//!
//! [`decide`] is a function of the recipient, the sender, what was looked up so far and the operator's policy. Where
//! something has not been looked up yet, the answer is the keys that are missing: the caller looks them up, all at
//! once, adds them to the snapshot and asks again, until there is a decision. What it wants to hold:
//!
//! - It ends: every address is expanded at most once, no deeper than `Policy::depth`, and a recipient that comes to
//!   more than `Policy::targets` addresses is refused as a whole.
//! - It is a function: the same snapshot gives the same targets in the same order, nearest first.
//! - No copy is lost: every recipient comes to at least one target, be it a refusal.
//! - No copy is doubled: a mailbox, a remote address and an unknown user each appear once.
//! - A loop among aliases costs nobody their copy: what leads back is left out, and only when nothing else is left is
//!   the recipient refused (5.4.6).
//! - Ours come first: a static route or an MX record never takes mail of a domain in the directory elsewhere.
//! - The answer to a notice is never sent to a list's owner: the null sender stays null.

mod locate;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use posthorn_mail::{Address, Domain, Host, ReversePath, Status};
use uuid::Uuid;

use crate::known::{Entry, Key, MailboxName, OurDomain, Own, Snapshot};
use crate::refusal;
use locate::{Found, Place, is_own_literal, locate};

/// What the operator has set.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// How many aliases, lists and catch-alls may stand one behind the other.
    pub(crate) depth: usize,
    /// The most addresses that a recipient may expand to.
    pub(crate) targets: usize,
    /// Who gets the mail for postmaster@ in domains that have no such address: this, and not a catch-all.
    pub(crate) postmaster: Option<Address>,
    /// What this installation itself is called.
    pub(crate) own: Own,
}

/// What [`decide`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// These are to be looked up first. Never empty, none twice, none that is known.
    Need(Vec<Key>),
    /// Never empty.
    Done(Vec<Target>),
}

/// One copy of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// The way from the recipient to here, for people.
    pub(crate) reason: String,
    /// Takes the place of the envelope's sender (RFC 5321 §3.9.2).
    pub(crate) sender: Option<Address>,
    pub(crate) decision: Decision,
}

impl Target {
    /// A target that puts the recipient itself off or refuses it.
    pub(crate) fn refused(recipient: &Address, status: Status) -> Self {
        refused(recipient, String::new(), status)
    }
}

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Local {
        account_id: Uuid,
        tenant_id: Arc<str>,
        quota_bytes: u64,
    },
    Remote {
        destination: Arc<str>,
        host: Host,
    },
    /// 5yz: the sender is told.
    Fail(Status),
    /// 4yz: to be decided again later.
    Later(Status),
}

/// Whether mail for a recipient may be taken at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acceptance {
    /// Whose domain it is in, where that is one of ours.
    pub(crate) tenant_id: Option<Arc<str>>,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// And what is decided, where the recipient is itself a mailbox.
    Ours(Option<Target>),
    Relay,
    Refused(Status),
}

impl Acceptance {
    /// It is in no domain of ours.
    pub(crate) fn nowhere(verdict: Verdict) -> Self {
        Self { tenant_id: None, verdict }
    }
}

/// Where a message from `sender` for `recipient` goes.
pub(crate) fn decide(recipient: &Address, sender: &ReversePath, known: &Snapshot, policy: &Policy) -> Step {
    let mut walk = Walk::new(recipient, sender, known, policy);
    while let Some(visit) = walk.queue.pop_front() {
        walk.visit(visit);
        if walk.met.len() > policy.targets {
            return Step::Done(vec![Target::refused(recipient, refusal::too_many(policy.targets))]);
        }
    }
    walk.finish(recipient)
}

/// Whether mail for `recipient` may be taken: the first step of the decision, without the DNS. `Err` holds the keys to
/// look up first.
pub(crate) fn accept(recipient: &Address, known: &Snapshot, policy: &Policy) -> Result<Acceptance, Vec<Key>> {
    let (domain, found) = match locate(recipient, known, policy)? {
        Place::Elsewhere(_) => return Ok(Acceptance::nowhere(Verdict::Relay)),
        Place::Here(Some(_)) => {
            return Ok(Acceptance { tenant_id: Some("default".into()), verdict: Verdict::Ours(None) });
        }
        Place::Here(None) => return Ok(Acceptance::nowhere(Verdict::Refused(refusal::no_postmaster()))),
        Place::Literal if is_own_literal(recipient, &policy.own) => {
            let refused = refusal::own_literal(recipient.host());
            return Ok(Acceptance::nowhere(Verdict::Refused(refused)));
        }
        Place::Literal => return Ok(Acceptance::nowhere(Verdict::Relay)),
        Place::Ours { domain, found } => (domain, found),
    };
    let verdict = match found {
        Found::Nothing => Verdict::Refused(refusal::unknown_user(recipient)),
        Found::NoPostmaster => Verdict::Refused(refusal::no_postmaster()),
        Found::Entry { entry: Entry::Account { disabled: true, .. }, .. } => {
            Verdict::Refused(refusal::disabled(recipient))
        }
        Found::Entry { name, entry: Entry::Account { account_id, quota_bytes, .. } } => {
            let decision = Decision::Local {
                account_id: *account_id,
                tenant_id: domain.tenant_id.clone(),
                quota_bytes: *quota_bytes,
            };
            let reason = format!("account {name}");
            Verdict::Ours(Some(Target { address: recipient.clone(), reason, sender: None, decision }))
        }
        Found::Entry { .. } | Found::Instead { .. } => Verdict::Ours(None),
    };
    Ok(Acceptance { tenant_id: Some(domain.tenant_id.clone()), verdict })
}

fn refused(address: &Address, way: String, status: Status) -> Target {
    let reason = format!("{way}{address}: {}", status.text());
    let decision = if status.is_transient() { Decision::Later(status) } else { Decision::Fail(status) };
    Target { address: address.clone(), reason, sender: None, decision }
}

/// An address still to be looked at.
struct Visit {
    address: Address,
    /// "alias sales@ -> list team@ -> ": how the recipient came to it.
    way: String,
    /// The owner of the nearest list on the way.
    sender: Option<Address>,
    depth: usize,
}

/// Goes through the addresses breadth first, so that each is met on its shortest way.
struct Walk<'a> {
    known: &'a Snapshot,
    policy: &'a Policy,
    keeps_sender: bool,
    queue: VecDeque<Visit>,
    /// Every address that was ever in the queue.
    met: HashSet<Address>,
    /// The entries that were expanded or delivered to: `alice+a@` and `alice+b@` are one.
    used: HashSet<MailboxName>,
    need: Vec<Key>,
    asked: HashSet<Key>,
    targets: Vec<Target>,
    empty_list: bool,
}

impl<'a> Walk<'a> {
    fn new(recipient: &Address, sender: &ReversePath, known: &'a Snapshot, policy: &'a Policy) -> Self {
        let mut walk = Self {
            known,
            policy,
            // A notice about a notice would go round for ever.
            keeps_sender: *sender == ReversePath::Null,
            queue: VecDeque::new(),
            met: HashSet::new(),
            used: HashSet::new(),
            need: Vec::new(),
            asked: HashSet::new(),
            targets: Vec::new(),
            empty_list: false,
        };
        walk.meet(Visit { address: recipient.clone(), way: String::new(), sender: None, depth: 0 });
        walk
    }

    fn meet(&mut self, visit: Visit) {
        if self.met.insert(visit.address.clone()) {
            self.queue.push_back(visit);
        }
    }

    fn need(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if self.asked.insert(key.clone()) {
                self.need.push(key);
            }
        }
    }

    fn visit(&mut self, visit: Visit) {
        let (known, policy) = (self.known, self.policy);
        let address = visit.address.clone();
        match locate(&address, known, policy) {
            Err(keys) => self.need(keys),
            Ok(Place::Literal) => self.literal(visit),
            Ok(Place::Elsewhere(domain)) => self.elsewhere(visit, domain),
            Ok(Place::Here(Some(to))) => self.instead(&visit, "postmaster of", to),
            Ok(Place::Here(None) | Place::Ours { found: Found::NoPostmaster, .. }) => {
                self.refuse(visit, refusal::no_postmaster());
            }
            Ok(Place::Ours { found: Found::Nothing, .. }) => {
                self.refuse(visit, refusal::unknown_user(&address));
            }
            Ok(Place::Ours { found: Found::Instead { why, to }, .. }) => self.instead(&visit, why, to),
            Ok(Place::Ours { found: Found::Entry { name, entry }, domain }) => {
                self.entry(visit, name, entry, domain);
            }
        }
    }

    fn entry(&mut self, visit: Visit, name: MailboxName, entry: &Entry, domain: &OurDomain) {
        if self.used.contains(&name) {
            return;
        }
        let shown = name.to_string();
        self.used.insert(name);
        match entry {
            Entry::Account { disabled: true, .. } => {
                let status = refusal::disabled(&visit.address);
                self.refuse(visit, status);
            }
            Entry::Account { account_id, quota_bytes, .. } => {
                let reason = format!("{}account {shown}", visit.way);
                let tenant_id = domain.tenant_id.clone();
                let decision =
                    Decision::Local { account_id: *account_id, tenant_id, quota_bytes: *quota_bytes };
                self.target(visit, reason, decision);
            }
            Entry::Alias { targets } => {
                self.expand(&visit, &format!("alias {shown} -> "), visit.sender.as_ref(), targets);
            }
            Entry::List { members, owner } => {
                self.empty_list |= members.is_empty();
                let owner = owner.as_ref().filter(|_| !self.keeps_sender);
                let sender = owner.or(visit.sender.as_ref());
                self.expand(&visit, &format!("list {shown} -> "), sender, members);
            }
        }
    }

    fn instead(&mut self, visit: &Visit, why: &str, to: &Address) {
        let step = format!("{why} {} -> ", visit.address.host());
        self.expand(visit, &step, visit.sender.as_ref(), std::slice::from_ref(to));
    }

    fn expand(&mut self, visit: &Visit, step: &str, sender: Option<&Address>, to: &[Address]) {
        if visit.depth >= self.policy.depth {
            let status = refusal::too_deep(self.policy.depth);
            self.targets.push(refused(&visit.address, visit.way.clone(), status));
            return;
        }
        for address in to {
            self.meet(Visit {
                address: address.clone(),
                way: format!("{}{step}", visit.way),
                sender: sender.cloned(),
                depth: visit.depth + 1,
            });
            if self.met.len() > self.policy.targets {
                return;
            }
        }
    }

    fn literal(&mut self, visit: Visit) {
        if is_own_literal(&visit.address, &self.policy.own) {
            let status = refusal::own_literal(visit.address.host());
            return self.refuse(visit, status);
        }
        let host = visit.address.host().clone();
        let reason = format!("{}{}", visit.way, visit.address);
        self.target(visit, reason, Decision::Remote { destination: host.to_string().into(), host });
    }

    fn elsewhere(&mut self, visit: Visit, domain: &Domain) {
        let (destination, by) = match self.known.routes.get(domain) {
            None => return self.need([Key::Route(domain.clone())]),
            Some(Some(route)) => (crate::mx::route_destination(route), format!("route {}", route.pattern)),
            Some(None) => match self.known.destinations.get(domain) {
                None => return self.need([Key::Destination(domain.clone())]),
                Some(Err(status)) => return self.refuse(visit, status.clone()),
                Some(Ok(destination)) => (destination.clone(), "DNS".to_owned()),
            },
        };
        let reason = format!("{}{} (by {by})", visit.way, visit.address);
        let host = Host::Name(domain.clone());
        self.target(visit, reason, Decision::Remote { destination, host });
    }

    fn refuse(&mut self, visit: Visit, status: Status) {
        self.targets.push(Target { sender: visit.sender, ..refused(&visit.address, visit.way, status) });
    }

    fn target(&mut self, visit: Visit, reason: String, decision: Decision) {
        self.targets.push(Target { address: visit.address, reason, sender: visit.sender, decision });
    }

    fn finish(self, recipient: &Address) -> Step {
        if !self.need.is_empty() {
            return Step::Need(self.need);
        }
        if !self.targets.is_empty() {
            return Step::Done(self.targets);
        }
        let status = if self.empty_list { refusal::empty_list() } else { refusal::alias_loop() };
        Step::Done(vec![Target::refused(recipient, status)])
    }
}

#[cfg(test)]
mod tests;
