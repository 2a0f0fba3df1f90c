//! The settings of `[router]`; `defaults.toml` explains each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use posthorn_database::Database;
use posthorn_mail::{Address, Domain};
use posthorn_service::config::{Mistake, Sources, load};
use posthorn_service::{Listen, Networks};
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
    /// Who may manage the directory without an API key.
    pub trusted_networks: Networks,
    /// What this installation calls itself.
    #[serde(deserialize_with = "domain")]
    pub hostname: Domain,
    /// Its other names.
    #[serde(deserialize_with = "domains")]
    pub own_names: Vec<Domain>,
    /// Its addresses.
    pub own_addresses: Vec<IpAddr>,
    /// Who gets the mail for postmaster where there is no such address; empty: the catch-all, or nobody.
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
    /// The most addresses that a recipient may expand to.
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
    /// Reads the section out of the sources, over the defaults. All mistakes are returned at once.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        let config: Self = load("router", DEFAULTS, sources)?;
        let mistakes = config.contradictions();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    fn contradictions(&self) -> Vec<Mistake> {
        let at_least_one = [
            ("expansion.depth", self.expansion.depth),
            ("expansion.targets", self.expansion.targets),
            ("dns.attempts", self.dns.attempts as usize),
            ("dns.max_hosts", self.dns.max_hosts),
            ("dns.concurrency", self.dns.concurrency),
            ("work.max_batch", self.work.max_batch as usize),
            ("work.batches", self.work.batches),
        ];
        let mistake = |setting: &str, reason: &str| Mistake {
            setting: format!("router.{setting}"),
            source: "all together".into(),
            reason: reason.into(),
        };
        let zero = at_least_one.into_iter().filter(|(_, value)| *value == 0);
        let mut mistakes: Vec<Mistake> = zero.map(|(setting, _)| mistake(setting, "must not be 0")).collect();
        if self.work.max_items < self.work.max_batch as usize {
            mistakes.push(mistake("work.max_items", "must not be less than work.max_batch"));
        }
        // One connection hears of changes.
        if self.database.max_connections < 2 {
            mistakes.push(mistake("database.max_connections", "must be at least 2"));
        }
        mistakes
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

fn domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Domain, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn domains<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Domain>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().map(|name| name.parse().map_err(serde::de::Error::custom)).collect()
}

fn optional_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
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
    fn settings_that_cannot_be_are_named() {
        for (setting, value) in [
            ("router.dns.servers", "[\"name:53\"]"),
            ("router.dns.ipv6", "sometimes"),
            ("router.dns.attempts", "0"),
            ("router.hostname", "a b"),
            ("router.postmaster", "nobody"),
            ("router.work.max_items", "1"),
            ("router.database.max_connections", "1"),
        ] {
            let mistakes = Config::load(&settings(&[(setting, value)])).unwrap_err();
            assert_eq!(mistakes.iter().map(|m| m.setting.as_str()).collect::<Vec<_>>(), [setting]);
        }
    }
}
