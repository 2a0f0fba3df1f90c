//! The settings; `defaults.toml` explains each.

use std::time::Duration;

use bytesize::ByteSize;
use posthorn_database::Database;
use posthorn_service::config::{Contradiction, Mistake, Sources, load_consistent};
use posthorn_service::{Listen, Networks, setting};
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
    #[serde(deserialize_with = "setting::service_url")]
    pub queue: String,
    /// URL of the router.
    #[serde(deserialize_with = "setting::service_url")]
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
    #[serde(deserialize_with = "setting::positive")]
    pub credits: u32,
    /// Messages in a batch at most.
    #[serde(deserialize_with = "setting::positive")]
    pub max_batch: u32,
    /// Transactions at the same time.
    #[serde(deserialize_with = "setting::positive")]
    pub writers: usize,
    /// Copies in a transaction, about.
    #[serde(deserialize_with = "setting::positive")]
    pub max_copies: usize,
    /// Times that a victim of a deadlock is tried.
    #[serde(deserialize_with = "setting::positive")]
    pub attempts: u32,
    /// How long a batch waits for Postgres.
    #[serde(deserialize_with = "setting::period")]
    pub patience: Duration,
}

/// The Mailbox API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mailbox {
    /// API keys that are remembered.
    pub remember: u64,
    /// The largest message that can be appended.
    #[serde(deserialize_with = "setting::positive")]
    pub max_append: ByteSize,
    /// How long an append may take.
    #[serde(deserialize_with = "setting::period")]
    pub append_timeout: Duration,
    /// Folders in a mailbox at most.
    #[serde(deserialize_with = "setting::positive")]
    pub max_folders: u32,
    /// Watchers at most.
    pub max_watchers: usize,
    /// How often the mailboxes that are watched are looked at without being told to.
    #[serde(deserialize_with = "setting::period")]
    pub recheck_watched_every: Duration,
}

/// Removing what is no longer needed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collect {
    /// The pause between two rounds.
    #[serde(deserialize_with = "setting::period")]
    pub every: Duration,
    /// How long a content must have been without a holder.
    #[serde(deserialize_with = "setting::period")]
    pub grace: Duration,
    /// Contents in a step.
    #[serde(deserialize_with = "setting::positive")]
    pub batch: u32,
    /// How long a delivery is remembered.
    #[serde(deserialize_with = "setting::period")]
    pub remember_deliveries_for: Duration,
    /// How long an expunge is remembered.
    #[serde(deserialize_with = "setting::length")]
    pub remember_expunges_for: Duration,
    /// How often the directory is asked whose mailboxes may go.
    #[serde(deserialize_with = "setting::period")]
    pub accounts_every: Duration,
    /// How long an account must be gone.
    #[serde(deserialize_with = "setting::length")]
    pub accounts_grace: Duration,
}

impl Config {
    /// The settings out of the defaults and what is laid over them; contradictions are mistakes, too.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        load_consistent(SECTION, DEFAULTS, sources, Self::contradictions)
    }

    fn contradictions(&self) -> Vec<Contradiction> {
        let connections = self.database.max_connections as usize;
        vec![
            (
                self.work.credits.checked_mul(self.work.max_batch).is_none(),
                &["work.max_batch", "work.credits"],
                "with so many work.credits is more than can be counted",
            ),
            // The collector and calls need connections beside the writers.
            (
                connections < self.work.writers.saturating_add(3),
                &["database.max_connections", "work.writers"],
                "must be at least work.writers + 3",
            ),
            (
                self.mailbox.append_timeout >= self.collect.grace,
                &["mailbox.append_timeout", "collect.grace"],
                "must be less than collect.grace, or an upload could be collected",
            ),
            (
                self.work.patience >= self.collect.grace,
                &["work.patience", "collect.grace"],
                "must be less than collect.grace, or what is delivered could have been collected",
            ),
        ]
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
    fn what_cannot_be_is_refused_by_name_and_all_at_once() {
        let wrong = [
            ("queue", "banana"),
            ("router", "https://router:7003"),
            ("database.url", "mysql://x"),
            ("work.credits", "0"),
            ("work.max_batch", "0"),
            ("work.writers", "0"),
            ("work.max_copies", "0"),
            ("work.attempts", "0"),
            ("mailbox.max_append", "0"),
            ("mailbox.append_timeout", "0s"),
            ("mailbox.max_folders", "0"),
            ("mailbox.recheck_watched_every", "0s"),
            ("collect.every", "0s"),
            ("collect.grace", "0s"),
            ("collect.batch", "0"),
            ("collect.remember_deliveries_for", "0s"),
            ("collect.accounts_every", "0s"),
        ];
        assert_eq!(mistakes(&wrong), wrong.map(|(name, _)| format!("{SECTION}.{name}")));
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        for (name, value) in [
            ("mailbox.append_timeout", "1h"),
            ("database.max_connections", "2"),
            ("work.max_batch", "4294967295"),
        ] {
            assert_eq!(mistakes(&[(name, value)]), [format!("{SECTION}.{name}")]);
        }
    }

    fn mistakes(settings: &[(&str, &str)]) -> Vec<String> {
        let said = settings.iter().map(|(name, value)| (format!("{SECTION}.{name}"), (*value).to_owned()));
        let sources = Sources { command_line: said.collect(), ..Sources::default() };
        let mistakes = Config::load(&sources).err().unwrap_or_default();
        mistakes.into_iter().map(|mistake| mistake.setting).collect()
    }
}
