//! Which hosts to try for a domain, and in which order (RFC 5321 §5.1). No I/O; randomness is an argument.
//!
//! - Lower preference first; equals in random order, anew at each asking, so that they share the load.
//! - No MX record: the domain itself, if it has an address (implicit MX). A null MX (RFC 7505): no mail at all.
//! - If one of the hosts is this installation, it and all that are no better are left out: what it could not deliver
//!   must not come back to it. If nothing is left, the mail loops.
//! - "There is none" is for good, "could not find out" is for later, and one host that could not be looked up is
//!   enough for "later", if no other has an address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use posthorn_mail::{Domain, Status};
use rand::Rng;
use rand::seq::SliceRandom as _;
use sha2::{Digest as _, Sha256};

use crate::known::{Own, StaticRoute};
use crate::refusal;

/// What the DNS said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    /// These; never empty.
    Found(Vec<T>),
    /// The name exists, records of this type do not.
    NoData,
    /// The name does not exist.
    NoName,
    /// It could not be found out.
    Trouble(String),
}

impl<T> Answer<T> {
    fn records(&self) -> &[T] {
        if let Self::Found(records) = self { records } else { &[] }
    }

    fn trouble(&self) -> Option<&str> {
        if let Self::Trouble(trouble) = self { Some(trouble) } else { None }
    }
}

/// An MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mx {
    pub(crate) preference: u16,
    pub(crate) exchange: Exchange,
}

/// Whom an MX record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exchange {
    Host(Domain),
    /// The root, ".": nobody (RFC 7505).
    Null,
    /// Something that no host can be called.
    Unusable,
}

impl Mx {
    fn host(&self) -> Option<(u16, Domain)> {
        match &self.exchange {
            Exchange::Host(name) => Some((self.preference, name.clone())),
            Exchange::Null | Exchange::Unusable => None,
        }
    }
}

/// The addresses of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) v4: Answer<Ipv4Addr>,
    pub(crate) v6: Answer<Ipv6Addr>,
}

/// What to make of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6 {
    /// One IPv6 address, one IPv4 address, and so on, so that a broken protocol costs one attempt.
    #[default]
    Interleave,
    /// All IPv6 addresses of a host, then its IPv4 addresses.
    First,
    /// The other way round.
    Last,
    /// IPv6 is not used.
    Never,
}

/// The hosts that take mail for a domain, as its MX records name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exchangers {
    domain: Domain,
    /// The domain has no MX record and is its own exchanger.
    implicit: bool,
    /// By preference; never empty.
    hosts: Vec<(u16, Domain)>,
    destination: Arc<str>,
}

/// A server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: String,
    /// In the order in which to try them; never empty.
    pub(crate) addresses: Vec<IpAddr>,
    /// 0: the relay's default.
    pub(crate) port: u16,
    /// A static route names it.
    pub(crate) by_route: bool,
}

impl fmt::Display for Server {
    /// Name and port, then the addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The relay's default, as far as the router knows.
        write!(f, "{}:{}", self.name, if self.port == 0 { 25 } else { self.port })?;
        self.addresses.iter().try_for_each(|address| write!(f, " {address}"))
    }
}

impl Exchangers {
    /// Reads a domain's MX records; what is this installation by name, and all that is no better, is left out.
    pub(crate) fn of(domain: &Domain, answer: &Answer<Mx>, own: &Own) -> Result<Self, Status> {
        let records = match answer {
            Answer::Found(records) => records.as_slice(),
            Answer::NoData => return Ok(Self::implicit(domain)),
            Answer::NoName => return Err(refusal::no_domain(domain)),
            Answer::Trouble(trouble) => return Err(refusal::dns_trouble(domain.as_str(), trouble)),
        };
        let mut hosts: Vec<(u16, Domain)> = records.iter().filter_map(Mx::host).collect();
        if hosts.is_empty() {
            // RFC 7505 §3. Beside other records a null MX says nothing.
            let is_null = records.iter().any(|mx| mx.exchange == Exchange::Null);
            return Err(if is_null { refusal::null_mx(domain) } else { refusal::no_exchanger(domain) });
        }
        hosts.sort();
        let destination = destination(hosts.iter().map(|(_, name)| name.as_str()));
        if let Some(own) = hosts.iter().find(|(_, name)| own.names.contains(name)).map(|(p, _)| *p) {
            hosts.retain(|(preference, _)| *preference < own);
        }
        if hosts.is_empty() {
            return Err(refusal::mail_loop(domain));
        }
        Ok(Self { domain: domain.clone(), implicit: false, hosts, destination })
    }

    fn implicit(domain: &Domain) -> Self {
        Self {
            domain: domain.clone(),
            implicit: true,
            hosts: vec![(0, domain.clone())],
            destination: destination([domain.as_str()]),
        }
    }

    /// What the queue calls the set of these hosts.
    pub(crate) fn destination(&self) -> Arc<str> {
        self.destination.clone()
    }

    /// Puts equals in random order and keeps the first `most`.
    pub(crate) fn shuffle(&mut self, most: usize, rng: &mut impl Rng) {
        for equals in self.hosts.chunk_by_mut(|a, b| a.0 == b.0) {
            equals.shuffle(rng);
        }
        self.hosts.truncate(most.max(1));
    }

    /// The hosts whose addresses are to be looked up.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Domain> {
        self.hosts.iter().map(|(_, name)| name)
    }

    /// The servers to try, in order.
    pub(crate) fn servers(
        &self,
        found: &HashMap<Domain, Addresses>,
        own: &Own,
        ipv6: Ipv6,
    ) -> Result<Vec<Server>, Status> {
        let mut servers = Vec::with_capacity(self.hosts.len());
        let (mut trouble, mut ours) = (None, None);
        for (preference, name) in &self.hosts {
            let Some(addresses) = found.get(name) else { continue };
            let ordered = order(addresses, ipv6);
            if ordered.iter().any(|ip| own.addresses.contains(ip)) {
                ours = Some(*preference);
                break;
            }
            trouble = trouble.or_else(|| unknown_address(addresses));
            if !ordered.is_empty() {
                let name = name.to_string();
                servers.push((*preference, Server { name, addresses: ordered, port: 0, by_route: false }));
            }
        }
        // Equals of ours may stand before it, as they were shuffled.
        servers.retain(|(preference, _)| ours.is_none_or(|ours| *preference < ours));
        match (servers.is_empty(), trouble, ours) {
            (false, _, _) => Ok(servers.into_iter().map(|(_, server)| server).collect()),
            (true, Some(trouble), _) => Err(refusal::dns_trouble(self.domain.as_str(), trouble)),
            (true, None, Some(_)) => Err(refusal::mail_loop(&self.domain)),
            (true, None, None) if self.implicit => Err(refusal::no_host(&self.domain)),
            (true, None, None) => Err(refusal::no_exchanger(&self.domain)),
        }
    }
}

/// Why a host without addresses may have some yet.
fn unknown_address(addresses: &Addresses) -> Option<&str> {
    addresses.v4.trouble().or(addresses.v6.trouble())
}

/// A host's addresses in the order in which to try them.
pub(crate) fn order(addresses: &Addresses, ipv6: Ipv6) -> Vec<IpAddr> {
    let v4 = || addresses.v4.records().iter().copied().map(IpAddr::V4);
    let v6 = || addresses.v6.records().iter().copied().map(IpAddr::V6);
    match ipv6 {
        Ipv6::First => v6().chain(v4()).collect(),
        Ipv6::Last => v4().chain(v6()).collect(),
        Ipv6::Never => v4().collect(),
        Ipv6::Interleave => {
            let (mut v4, mut v6) = (v4(), v6());
            let mut ordered = Vec::new();
            loop {
                match (v6.next(), v4.next()) {
                    (None, None) => return ordered,
                    (a, b) => ordered.extend(a.into_iter().chain(b)),
                }
            }
        }
    }
}

/// What the queue calls the hosts of a static route.
pub(crate) fn route_destination(route: &StaticRoute) -> Arc<str> {
    let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
    short(format!("route:{}", hosts.join(",")))
}

/// A set of hosts as a name: sorted, so that two domains with the same hosts share it whatever their preferences.
fn destination<'a>(names: impl IntoIterator<Item = &'a str>) -> Arc<str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    short(names.join(","))
}

/// Names of more than 200 bytes are cut, with a hash of the whole, so that they stay different and printable.
fn short(name: String) -> Arc<str> {
    const LONGEST: usize = 200;
    if name.len() <= LONGEST {
        return name.into();
    }
    let hash: String = Sha256::digest(&name).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let start = name.floor_char_boundary(LONGEST - hash.len() - 1);
    format!("{}#{hash}", &name[..start]).into()
}

#[cfg(test)]
mod tests;
