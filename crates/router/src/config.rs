//! The settings of `[router]`; `defaults.toml` explains each.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use posthorn_mail::{Address, Domain};
use posthorn_service::Listen;
use serde::{Deserialize, Deserializer};

use crate::decide::Policy;
use crate::known::Own;
pub use crate::mx::Ipv6;

/// The commented defaults, which are the reference.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// `[router]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    pub listen: Listen,
    /// URL of the queue.
    pub queue: String,
    /// What this installation calls itself.
    pub hostname: String,
    /// Its other names.
    pub own_names: Vec<String>,
    /// Its addresses.
    pub own_addresses: Vec<IpAddr>,
    /// Who gets the mail for postmaster where nobody else does; empty: nobody.
    #[serde(deserialize_with = "optional_address")]
    pub postmaster: Option<Address>,
    /// The directory's database.
    pub database: Database,
    /// What is kept of it in memory.
    pub cache: Cache,
    /// How far addresses are expanded.
    pub expansion: Expansion,
    /// How the DNS is asked.
    pub dns: Dns,
    /// How work is taken from the queue.
    pub work: Work,
}

/// `[router.database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// URL of the Postgres database.
    pub url: String,
    /// The most connections at once.
    pub max_connections: u32,
    /// How long to wait for a free connection.
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
    /// How long a statement may take.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
}

/// `[router.cache]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Addresses, domains and routes to keep; a list counts once for each member.
    pub entries: u64,
    /// How long a cached entry is still believed after the connection that tells of changes was lost.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// How often that connection is tested.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long other services may keep what they were told of an API key.
    #[serde(with = "humantime_serde")]
    pub keys: Duration,
}

/// `[router.expansion]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expansion {
    /// How many aliases and lists may stand one behind the other.
    pub depth: usize,
    /// To how many addresses a recipient may come.
    pub targets: usize,
}

/// `[router.dns]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Name servers; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// How long one attempt may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Attempts at a question.
    pub attempts: u32,
    /// What to make of IPv6.
    pub ipv6: Ipv6,
    /// MX hosts to look at.
    pub max_hosts: usize,
    /// Questions that may be open at once.
    pub concurrency: usize,
    /// Answers to keep.
    pub cache_entries: u64,
    /// The longest an answer is kept.
    #[serde(with = "humantime_serde")]
    pub cache_longest: Duration,
    /// The longest a "there is none" is kept.
    #[serde(with = "humantime_serde")]
    pub cache_longest_negative: Duration,
    /// How long the lack of an answer is kept.
    #[serde(with = "humantime_serde")]
    pub trouble: Duration,
}

/// `[router.work]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// The most messages in a batch.
    pub max_batch: u32,
    /// The most messages under way.
    pub max_items: usize,
    /// Batches that may be asked for at once.
    pub batches: usize,
    /// How long what is under way may take to end once the router was told to stop.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Config {
    /// What the decision needs to know of the settings.
    pub(crate) fn policy(&self) -> Result<Policy, posthorn_service::Error> {
        Ok(Policy {
            depth: self.expansion.depth,
            targets: self.expansion.targets,
            postmaster: self.postmaster.clone(),
            own: self.own()?,
        })
    }

    fn own(&self) -> Result<Own, posthorn_service::Error> {
        let names = std::iter::once(&self.hostname).chain(&self.own_names);
        let names = names
            .filter(|name| !name.is_empty())
            .map(|name| {
                name.parse::<Domain>().map_err(|e| {
                    posthorn_service::Error::fatal(format!("router.hostname, router.own_names: {name}: {e}"))
                })
            })
            .collect::<Result<HashSet<_>, _>>()?;
        Ok(Own { names, addresses: self.own_addresses.iter().copied().collect() })
    }
}

fn optional_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}
