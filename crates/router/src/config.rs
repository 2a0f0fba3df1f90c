//! The settings of `[router]`; `defaults.toml` explains each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use posthorn_database::Database;
use posthorn_mail::{Address, Domain};
use posthorn_service::config::{Contradiction, Mistake, Sources, load_consistent};
use posthorn_service::{Listen, Networks, setting};
use serde::Deserialize;

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
    #[serde(deserialize_with = "setting::service_url")]
    pub queue: String,
    /// Who may manage the directory without an API key.
    pub trusted_networks: Networks,
    /// What this installation calls itself.
    #[serde(deserialize_with = "setting::parsed")]
    pub hostname: Domain,
    /// Its other names.
    #[serde(deserialize_with = "setting::all_parsed")]
    pub own_names: Vec<Domain>,
    /// Its addresses.
    pub own_addresses: Vec<IpAddr>,
    /// Who gets the mail for postmaster where there is no such address; empty: the catch-all, or nobody.
    #[serde(deserialize_with = "setting::optional")]
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

/// `[router.cache]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Addresses, domains and routes to keep; a list counts once for each member.
    pub entries: u64,
    /// How long a cached entry is still believed after the connection that tells of changes was lost.
    #[serde(deserialize_with = "setting::length")]
    pub grace: Duration,
    /// How often that connection is tested.
    #[serde(deserialize_with = "setting::period")]
    pub heartbeat: Duration,
    /// How long other services may keep what they were told of an API key.
    #[serde(deserialize_with = "setting::length")]
    pub keys: Duration,
    /// How long those who are told of changes may keep what they were told of an address.
    #[serde(deserialize_with = "setting::length")]
    pub recipients: Duration,
}

/// `[router.expansion]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expansion {
    /// How many aliases and lists may stand one behind the other.
    #[serde(deserialize_with = "setting::positive")]
    pub depth: usize,
    /// The most addresses that a recipient may expand to.
    #[serde(deserialize_with = "setting::positive")]
    pub targets: usize,
}

/// `[router.dns]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Name servers; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// How long one attempt may take.
    #[serde(deserialize_with = "setting::period")]
    pub timeout: Duration,
    /// Attempts at a question.
    #[serde(deserialize_with = "setting::positive")]
    pub attempts: u32,
    /// What to make of IPv6.
    pub ipv6: Ipv6,
    /// MX hosts to look at.
    #[serde(deserialize_with = "setting::positive")]
    pub max_hosts: usize,
    /// Questions that may be open at once.
    #[serde(deserialize_with = "setting::positive")]
    pub concurrency: usize,
    /// Answers to keep.
    pub cache_entries: u64,
    /// The longest an answer is kept.
    #[serde(deserialize_with = "setting::length")]
    pub cache_longest: Duration,
    /// The longest a "there is none" is kept.
    #[serde(deserialize_with = "setting::length")]
    pub cache_longest_negative: Duration,
    /// How long the lack of an answer is kept.
    #[serde(deserialize_with = "setting::length")]
    pub trouble: Duration,
}

/// `[router.work]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// The most messages in a batch.
    #[serde(deserialize_with = "setting::positive")]
    pub max_batch: u32,
    /// The most messages under way.
    #[serde(deserialize_with = "setting::positive")]
    pub max_items: usize,
    /// Batches that may be asked for at once.
    #[serde(deserialize_with = "setting::positive")]
    pub batches: usize,
    /// How long what is under way may take to end once the router was told to stop.
    #[serde(deserialize_with = "setting::length")]
    pub drain: Duration,
}

impl Config {
    /// Reads the section out of the sources, over the defaults. All mistakes are returned at once.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        load_consistent("router", DEFAULTS, sources, Self::contradictions)
    }

    fn contradictions(&self) -> Vec<Contradiction> {
        vec![
            (
                self.work.max_items < self.work.max_batch as usize,
                &["work.max_items", "work.max_batch"],
                "must not be less than work.max_batch",
            ),
            // One connection hears of changes.
            (self.database.max_connections < 2, &["database.max_connections"], "must be at least 2"),
        ]
    }

    /// What the decision needs to know of the settings.
    pub(crate) fn policy(&self) -> Policy {
        let names = std::iter::once(&self.hostname).chain(&self.own_names).cloned().collect();
        let own = Own { names, addresses: self.own_addresses.iter().copied().collect() };
        Policy {
            depth: self.expansion.depth,
            targets: self.expansion.targets,
            postmaster: self.postmaster.clone(),
            own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[(&str, &str)]) -> Sources {
        let command_line = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Sources { command_line: command_line.collect(), ..Sources::default() }
    }

    #[test]
    fn the_defaults_can_be_run_with() {
        let config = Config::load(&settings(&[])).unwrap();
        assert_eq!((config.dns.timeout, config.dns.attempts), (Duration::from_secs(5), 2));
        assert_eq!(config.postmaster, None);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_and_all_at_once() {
        let wrong = [
            ("router.queue", "banana"),
            ("router.hostname", "a b"),
            ("router.own_names", "['a..b']"),
            ("router.own_addresses", "['mx.example.net']"),
            ("router.postmaster", "nobody"),
            ("router.database.url", "mysql://x"),
            ("router.cache.heartbeat", "0s"),
            ("router.expansion.depth", "0"),
            ("router.expansion.targets", "0"),
            ("router.dns.servers", "['name:53']"),
            ("router.dns.timeout", "0s"),
            ("router.dns.attempts", "0"),
            ("router.dns.ipv6", "sometimes"),
            ("router.dns.max_hosts", "0"),
            ("router.dns.concurrency", "0"),
            ("router.work.max_batch", "0"),
            ("router.work.batches", "0"),
            ("router.work.max_items", "0"),
            ("router.database.max_connections", "1"),
        ];
        let mistakes = Config::load(&settings(&wrong)).unwrap_err();
        let told: Vec<_> = mistakes.iter().map(|mistake| mistake.setting.as_str()).collect();
        assert_eq!(told, wrong.map(|(name, _)| name));
    }

    #[test]
    fn what_may_be_nothing_may_be() {
        let nothing = [
            ("router.cache.entries", "0"),
            ("router.cache.grace", "0s"),
            ("router.cache.keys", "0s"),
            ("router.cache.recipients", "0s"),
            ("router.dns.cache_entries", "0"),
            ("router.dns.cache_longest", "0s"),
            ("router.dns.trouble", "0s"),
            ("router.work.drain", "0s"),
        ];
        Config::load(&settings(&nothing)).unwrap();
    }

    #[test]
    fn a_batch_has_room() {
        let mistakes = Config::load(&settings(&[("router.work.max_items", "1")])).unwrap_err();
        assert_eq!(mistakes[0].setting, "router.work.max_items");
    }
}
