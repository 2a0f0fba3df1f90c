//! A directory and a DNS in memory, asked as the router asks.

use std::collections::HashSet;

use posthorn_mail::EnhancedStatus;

use super::super::*;
use crate::known::{RouteHost, StaticRoute};

pub(super) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub(super) fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

/// An account's id out of its name, so that a test can tell accounts apart.
pub(super) fn id(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Uuid::from_bytes(bytes)
}

/// A world: what is not in it does not exist, and the snapshot says so.
#[derive(Default)]
pub(super) struct World {
    known: Snapshot,
}

impl World {
    pub(super) fn ours(mut self, name: &str, catch_all: &str, separator: &str) -> Self {
        let catch_all = (!catch_all.is_empty()).then(|| address(catch_all));
        let separator = (!separator.is_empty()).then(|| separator.into());
        let ours = OurDomain { tenant_id: "default".into(), catch_all, separator };
        self.known.domains.insert(domain(name), Some(Arc::new(ours)));
        self
    }

    pub(super) fn entry(mut self, name: &str, entry: Entry) -> Self {
        let name = MailboxName::of(&address(name)).unwrap();
        self.known.mailboxes.insert(name, Some(Arc::new(entry)));
        self
    }

    pub(super) fn account(self, name: &str) -> Self {
        let account_id = id(address(name).local());
        self.entry(name, Entry::Account { account_id, quota_bytes: 7, disabled: false })
    }

    pub(super) fn disabled(self, name: &str) -> Self {
        self.entry(name, Entry::Account { account_id: id("x"), quota_bytes: 0, disabled: true })
    }

    pub(super) fn alias(self, name: &str, targets: &[&str]) -> Self {
        self.entry(name, Entry::Alias { targets: targets.iter().map(|t| address(t)).collect() })
    }

    pub(super) fn list(self, name: &str, owner: &str, members: &[&str]) -> Self {
        let owner = (!owner.is_empty()).then(|| address(owner));
        self.entry(name, Entry::List { members: members.iter().map(|m| address(m)).collect(), owner })
    }

    pub(super) fn route(mut self, of: &str, pattern: &str, host: &str) -> Self {
        let hosts = vec![RouteHost { host: host.into(), port: 0 }];
        let route = StaticRoute { pattern: pattern.into(), hosts };
        self.known.routes.insert(domain(of), Some(Arc::new(route)));
        self
    }

    pub(super) fn dns(mut self, of: &str, answer: Result<&str, (u16, EnhancedStatus)>) -> Self {
        let answer = match answer {
            Ok(destination) => Ok(destination.into()),
            Err((code, enhanced)) => Err(Status::new(code, enhanced, "told so by the DNS")),
        };
        self.known.destinations.insert(domain(of), answer);
        self
    }

    /// Answers a key as the directory and the DNS of this world would.
    pub(super) fn answer(&self, key: &Key, known: &mut Snapshot) {
        match key {
            Key::Domain(name) => {
                known.domains.insert(name.clone(), self.known.domains.get(name).cloned().flatten());
            }
            Key::Mailbox(name) => {
                known.mailboxes.insert(name.clone(), self.known.mailboxes.get(name).cloned().flatten());
            }
            Key::Route(name) => {
                known.routes.insert(name.clone(), self.known.routes.get(name).cloned().flatten());
            }
            Key::Destination(name) => {
                let answer = self.known.destinations.get(name).cloned();
                known
                    .destinations
                    .insert(name.clone(), answer.unwrap_or_else(|| Err(refusal::no_domain(name))));
            }
        }
    }

    /// Decides as the router does: asks, looks up, asks again.
    pub(super) fn targets(&self, recipient: &str, sender: &str, policy: &Policy) -> Vec<Target> {
        let (recipient, sender) = (address(recipient), sender.parse().unwrap());
        let mut known = Snapshot::default();
        for _ in 0..1_000 {
            match decide(&recipient, &sender, &known, policy) {
                Step::Done(targets) => return targets,
                Step::Need(keys) => {
                    assert!(!keys.is_empty(), "a need of nothing");
                    for key in &keys {
                        assert!(!is_known(key, &known), "{key:?} was known");
                        self.answer(key, &mut known);
                    }
                    let different: HashSet<&Key> = keys.iter().collect();
                    assert_eq!(different.len(), keys.len(), "a key is asked for twice: {keys:?}");
                }
            }
        }
        panic!("no decision after a thousand look-ups");
    }

    /// The targets, shortly: "ADDRESS local NAME", "ADDRESS remote DESTINATION", "ADDRESS fail|later CODE ENHANCED".
    pub(super) fn decide(&self, recipient: &str, policy: &Policy) -> Vec<String> {
        self.targets(recipient, "sender@example.net", policy).iter().map(short).collect()
    }
}

pub(super) fn is_known(key: &Key, known: &Snapshot) -> bool {
    match key {
        Key::Domain(name) => known.domains.contains_key(name),
        Key::Mailbox(name) => known.mailboxes.contains_key(name),
        Key::Route(name) => known.routes.contains_key(name),
        Key::Destination(name) => known.destinations.contains_key(name),
    }
}

pub(super) fn short(target: &Target) -> String {
    let what = match &target.decision {
        Decision::Local { account_id, .. } => {
            format!("local {}", String::from_utf8_lossy(account_id.as_bytes()).trim_end_matches('\0'))
        }
        Decision::Remote { destination, host } => format!("remote {destination} {host}"),
        Decision::Fail(status) => format!("fail {} {}", status.code(), status.enhanced()),
        Decision::Later(status) => format!("later {} {}", status.code(), status.enhanced()),
    };
    format!("{} {what}", target.address)
}

pub(super) fn policy() -> Policy {
    let own = Own {
        names: HashSet::from([domain("mx.example.test")]),
        addresses: HashSet::from(["192.0.2.99".parse().unwrap()]),
    };
    Policy { depth: 10, targets: 10_000, postmaster: None, own }
}

pub(super) const SERVFAIL: (u16, EnhancedStatus) = (451, EnhancedStatus::new(4, 4, 3));
pub(super) const NULL_MX: (u16, EnhancedStatus) = (556, EnhancedStatus::new(5, 1, 10));

pub(super) fn world() -> World {
    World::default()
        .ours("example.test", "", "+")
        .ours("dash.test", "", "--")
        .ours("plain.test", "", "")
        .ours("catch.test", "alice@example.test", "+")
        .ours("catch-out.test", "all@example.net", "+")
        .ours("catch-self.test", "nobody@catch-self.test", "+")
        .ours("catch-kept.test", "keeper@catch-kept.test", "+")
        .account("keeper@catch-kept.test")
        .account("alice@example.test")
        .account("bob@example.test")
        .account("a+b@example.test")
        .account("carol@dash.test")
        .account("dave@plain.test")
        .account("known@catch.test")
        .disabled("gone@example.test")
        .alias("sales@example.test", &["bob@example.test"])
        .alias("all@example.test", &["alice@example.test", "sales@example.test", "x@example.net"])
        .alias("twice@example.test", &["alice@example.test", "Alice+y@example.test", "ALICE@example.test"])
        .alias("loop1@example.test", &["loop2@example.test"])
        .alias("loop2@example.test", &["loop1@example.test"])
        .alias("self@example.test", &["self@example.test", "bob@example.test"])
        .alias("mixed@example.test", &["nobody@example.test", "gone@example.test", "alice@example.test"])
        .alias("out@example.test", &["x@example.net"])
        .alias("quoted@example.test", &["\"a b\"@example.test"])
        .list("team@example.test", "owner@example.test", &["alice@example.test", "x@example.net"])
        .list("both@example.test", "boss@example.test", &["team@example.test", "bob@example.test"])
        .list("ownerless@example.test", "", &["alice@example.test"])
        .list("around@example.test", "boss@example.test", &["ownerless@example.test"])
        .list("empty@example.test", "", &[])
        .dns("example.net", Ok("mx.example.net"))
        .dns("slow.example", Err(SERVFAIL))
        .dns("null.example", Err(NULL_MX))
        .dns("routed.example", Ok("never asked"))
        .route("routed.example", "*", "smart.example")
}
