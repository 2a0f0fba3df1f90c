//! What the directory and the DNS can say, as values: decisions are made of these.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use posthorn_mail::{Address, Domain, Host, Status};
use uuid::Uuid;

/// What the directory looks an address up by: the local part folded to lower case, and a domain.
///
/// RFC 5321 §2.4 lets a host treat its local parts as it likes; ours do not differ by case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MailboxName {
    pub(crate) local: Box<str>,
    pub(crate) domain: Domain,
}

impl MailboxName {
    /// The name of a local part in a domain.
    pub(crate) fn new(local: &str, domain: &Domain) -> Self {
        Self { local: local.to_lowercase().into(), domain: domain.clone() }
    }

    /// The name of an address; `None` when it ends in a literal.
    pub(crate) fn of(address: &Address) -> Option<Self> {
        address.domain().map(|domain| Self::new(address.local(), domain))
    }
}

impl fmt::Display for MailboxName {
    /// As an address, quoted where it must be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Address::new(&self.local, Host::Name(self.domain.clone())) {
            Ok(address) => address.fmt(f),
            Err(_) => write!(f, "{}@{}", self.local, self.domain),
        }
    }
}

/// A domain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OurDomain {
    pub(crate) tenant_id: Arc<str>,
    pub(crate) catch_all: Option<Address>,
    /// What parts the local part from a subaddress (RFC 5233).
    pub(crate) separator: Option<Box<str>>,
}

/// What an address of ours is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Account { account_id: Uuid, quota_bytes: u64, disabled: bool },
    Alias { targets: Vec<Address> },
    List { members: Vec<Address>, owner: Option<Address> },
}

/// Where an operator wants mail of a domain (or of many) to go, whatever the DNS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StaticRoute {
    /// A domain, ".example.com" for all below it, or "*".
    pub(crate) pattern: String,
    /// In the order in which to try them; never empty.
    pub(crate) hosts: Vec<RouteHost>,
}

/// A server of a static route.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct RouteHost {
    /// A host name or an IP address.
    pub(crate) host: String,
    /// 0: the relay's default.
    pub(crate) port: u16,
}

impl fmt::Display for RouteHost {
    /// With the port where it is not the relay's default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            _ => write!(f, "{}", self.host)?,
        }
        if self.port == 0 { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// The names and addresses that are this installation itself: mail that the DNS would send there has gone round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    pub(crate) names: HashSet<Domain>,
    pub(crate) addresses: HashSet<IpAddr>,
}

/// Something that a decision depends on and that must be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// Is the domain ours?
    Domain(Domain),
    /// What is this address of ours?
    Mailbox(MailboxName),
    /// Is there a static route for this domain of others?
    Route(Domain),
    /// What does the DNS say of this domain of others?
    Destination(Domain),
}

/// What the DNS came to for a domain: the destination's name, or why there is none (4yz or 5yz).
pub(crate) type DestinationAnswer = Result<Arc<str>, Status>;

/// What was looked up so far. An absent key is not known yet; `None` is known not to exist.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) domains: HashMap<Domain, Option<Arc<OurDomain>>>,
    pub(crate) mailboxes: HashMap<MailboxName, Option<Arc<Entry>>>,
    pub(crate) routes: HashMap<Domain, Option<Arc<StaticRoute>>>,
    pub(crate) destinations: HashMap<Domain, DestinationAnswer>,
}

impl Snapshot {
    /// What was found under a key, for people.
    pub(crate) fn describe(&self, key: &Key) -> String {
        match key {
            Key::Domain(name) => match self.domains.get(name) {
                Some(Some(domain)) => format!("domain {name}: ours (tenant {})", domain.tenant_id),
                _ => format!("domain {name}: not ours"),
            },
            Key::Mailbox(name) => {
                format!(
                    "address {name}: {}",
                    describe_entry(self.mailboxes.get(name).and_then(|e| e.as_deref()))
                )
            }
            Key::Route(name) => match self.routes.get(name) {
                Some(Some(route)) => format!("route for {name}: {}", describe_route(route)),
                _ => format!("route for {name}: none"),
            },
            Key::Destination(name) => match self.destinations.get(name) {
                Some(Ok(destination)) => format!("DNS of {name}: {destination}"),
                Some(Err(status)) => format!("DNS of {name}: {status}"),
                None => format!("DNS of {name}: not asked"),
            },
        }
    }
}

fn describe_entry(entry: Option<&Entry>) -> String {
    match entry {
        None => "nothing".into(),
        Some(Entry::Account { disabled: true, .. }) => "an account, disabled".into(),
        Some(Entry::Account { account_id, .. }) => format!("account {account_id}"),
        Some(Entry::Alias { targets }) => format!("an alias of {} targets", targets.len()),
        Some(Entry::List { members, .. }) => format!("a list of {} members", members.len()),
    }
}

fn describe_route(route: &StaticRoute) -> String {
    let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
    format!("{} -> {}", route.pattern, hosts.join(", "))
}
