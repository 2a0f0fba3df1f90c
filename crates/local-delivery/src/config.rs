//! The settings; `defaults.toml` explains each.

use std::time::Duration;

use bytesize::ByteSize;
use posthorn_database::Database;
use posthorn_service::config::{Mistake, Sources};
use posthorn_service::{Listen, Networks};
use serde::Deserialize;

/// The section of this service.
const SECTION: &str = "local_delivery";

/// The commented defaults, which are also the reference.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// All settings of local-delivery.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URL of the queue.
    pub queue: String,
    /// URL of the router.
    pub router: String,
    /// Callers without an API key.
    pub trusted_networks: Networks,
    /// Where to serve.
    pub listen: Listen,
    /// Postgres.
    pub database: Database,
    /// Taking work from the queue.
    pub work: Work,
    /// The Mailbox API.
    pub mailbox: Mailbox,
    /// Removing what is no longer needed.
    pub collect: Collect,
}

/// Taking work from the queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Batches that may be here at once.
    pub credits: u32,
    /// Messages in a batch at most.
    pub max_batch: u32,
    /// Transactions at the same time.
    pub writers: usize,
    /// Copies in a transaction, about.
    pub max_copies: usize,
    /// Times that a victim of a deadlock is tried.
    pub attempts: u32,
}

/// The Mailbox API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mailbox {
    /// API keys that are remembered.
    pub remember: u64,
    /// The largest message that can be appended.
    pub max_append: ByteSize,
    /// How long an append may take.
    #[serde(with = "humantime_serde")]
    pub append_timeout: Duration,
    /// Folders in a mailbox at most.
    pub max_folders: u32,
    /// Watchers at most.
    pub max_watchers: usize,
    /// How often the mailboxes that are watched are looked at without being told to.
    #[serde(with = "humantime_serde")]
    pub recheck_watched_every: Duration,
}

/// Removing what is no longer needed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collect {
    /// The pause between two rounds.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// How long a content must have been without a holder.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// Contents in a step.
    pub batch: u32,
    /// How long a delivery is remembered.
    #[serde(with = "humantime_serde")]
    pub remember_deliveries_for: Duration,
    /// How long an expunge is remembered.
    #[serde(with = "humantime_serde")]
    pub remember_expunges_for: Duration,
    /// How often the directory is asked whose mailboxes may go.
    #[serde(with = "humantime_serde")]
    pub accounts_every: Duration,
    /// How long an account must be gone.
    #[serde(with = "humantime_serde")]
    pub accounts_grace: Duration,
}

impl Config {
    /// The settings out of the defaults and what is laid over them; contradictions are mistakes, too.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        let config: Self = posthorn_service::config::load(SECTION, DEFAULTS, sources)?;
        let mistakes = config.contradictions();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    fn contradictions(&self) -> Vec<Mistake> {
        let at_least_one = "must be at least 1";
        let contradictions = [
            (self.work.credits == 0, "work.credits", at_least_one),
            (self.work.max_batch == 0, "work.max_batch", at_least_one),
            (self.work.writers == 0, "work.writers", at_least_one),
            (self.work.max_copies == 0, "work.max_copies", at_least_one),
            (self.work.attempts == 0, "work.attempts", at_least_one),
            (self.collect.batch == 0, "collect.batch", at_least_one),
            (self.collect.every.is_zero(), "collect.every", "must not be 0"),
            (self.collect.accounts_every.is_zero(), "collect.accounts_every", "must not be 0"),
            (self.mailbox.recheck_watched_every.is_zero(), "mailbox.recheck_watched_every", "must not be 0"),
            // The collector and calls need connections beside the writers.
            (
                (self.database.max_connections as usize) < self.work.writers + 2,
                "database.max_connections",
                "must be at least work.writers + 2",
            ),
            (
                self.mailbox.append_timeout >= self.collect.grace,
                "mailbox.append_timeout",
                "must be less than collect.grace, or an upload could be collected",
            ),
        ];
        let wrong = contradictions.into_iter().filter(|(wrong, ..)| *wrong);
        wrong
            .map(|(_, setting, reason)| Mistake {
                setting: format!("{SECTION}.{setting}"),
                source: "all together".into(),
                reason: reason.into(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_defaults_are_complete_and_sound() {
        Config::load(&Sources::default()).unwrap();
    }

    #[test]
    fn contradictions_are_told() {
        let said = [("local_delivery.work.credits", "0"), ("local_delivery.mailbox.append_timeout", "1h")];
        let command_line = said.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mistakes = Config::load(&Sources { command_line, ..Sources::default() }).unwrap_err();
        let settings: Vec<_> = mistakes.iter().map(|mistake| mistake.setting.as_str()).collect();
        assert_eq!(settings, ["local_delivery.work.credits", "local_delivery.mailbox.append_timeout"]);
    }
}
