//! The settings of `[queue]`; `defaults.toml` explains each.

use std::time::Duration;

use bytesize::ByteSize;
use posthorn_database::Database;
use posthorn_mail::{Address, Domain, Host};
use posthorn_service::config::{Mistake, Sources};
use posthorn_service::{Listen, Networks};
use serde::{Deserialize, Deserializer};

/// The commented defaults, which are the reference.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// `[queue]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this installation calls itself in notices.
    #[serde(deserialize_with = "domain")]
    pub hostname: Domain,
    /// URL of the router.
    pub router: String,
    /// Operators without an API key.
    pub trusted_networks: Networks,
    /// Where it listens.
    pub listen: Listen,
    /// The spool's database.
    pub database: Database,
    /// The schedule's Redis.
    pub redis: Redis,
    /// How messages are taken in.
    pub accept: Accept,
    /// How much may wait.
    pub spool: Spool,
    /// When an attempt follows another.
    pub retry: Retry,
    /// When and how senders are told.
    pub notice: Notice,
    /// When it is enough.
    pub give_up: GiveUp,
    /// How work is given out.
    pub lease: Lease,
    /// How outcomes are written.
    pub outcome: Outcome,
    /// How much a destination is given.
    pub destination: Destination,
    /// What is remembered of messages that have ended.
    pub trace: Trace,
    /// How what fell out of the schedule is found.
    pub sweep: Sweep,
}

/// `[queue.redis]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// URL of the Redis server.
    pub url: String,
    /// What every key begins with.
    pub prefix: String,
    /// How long a command may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Parts that each kind of work is cut into; at least 1.
    pub partitions: u16,
}

/// `[queue.accept]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// Transactions at the same time.
    pub writers: usize,
    /// The most messages in one.
    pub max_batch: usize,
    /// The most bytes in one.
    pub max_batch_bytes: ByteSize,
    /// Messages that may wait for one.
    pub max_waiting: usize,
    /// The largest message.
    pub max_message: ByteSize,
    /// The most recipients of a message.
    pub max_recipients: usize,
    /// How long a key is remembered.
    #[serde(with = "humantime_serde")]
    pub idempotency: Duration,
}

/// `[queue.spool]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spool {
    /// The most messages; 0 is no limit.
    pub max_messages: u64,
    /// The most bytes; 0 is no limit.
    pub max_bytes: ByteSize,
    /// How often they are counted.
    #[serde(with = "humantime_serde")]
    pub count_every: Duration,
}

/// `[queue.retry]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The pauses; empty: the built-in ones.
    #[serde(deserialize_with = "periods")]
    pub schedule: Vec<Duration>,
    /// The pause after an uncertain end.
    #[serde(with = "humantime_serde")]
    pub uncertain: Duration,
}

/// `[queue.notice]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Ages of a message at which its sender is told of the delay.
    #[serde(deserialize_with = "periods")]
    pub after: Vec<Duration>,
    /// Up to this size a failure notice brings the message back.
    pub return_full_up_to: ByteSize,
    /// The most that RET=FULL brings back.
    pub return_at_most: ByteSize,
}

/// `[queue.give_up]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveUp {
    /// The age of a message.
    #[serde(with = "humantime_serde")]
    pub after: Duration,
    /// The number of attempts; 0 is no limit.
    pub attempts: u32,
}

/// `[queue.lease]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// How long a worker may be silent about a batch.
    #[serde(with = "humantime_serde")]
    pub length: Duration,
    /// The same once its stream is broken.
    #[serde(with = "humantime_serde")]
    pub orphaned: Duration,
    /// The most messages led from the door to the mailbox without a stop at the ledger.
    pub in_hand: usize,
    /// Leases without an outcome after which an item is set aside.
    pub poison_after: u8,
    /// The most items in a batch.
    pub max_batch: u32,
    /// Contents up to this size travel with remote work.
    pub inline_up_to: ByteSize,
    /// The most bytes of contents in a batch.
    pub inline_batch: ByteSize,
}

/// `[queue.outcome]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Transactions at the same time.
    pub writers: usize,
    /// The most items in one.
    pub max_batch: usize,
    /// Reports that may wait for one.
    pub max_waiting: usize,
}

/// `[queue.destination]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Batches under way at first.
    pub concurrency: u32,
    /// Batches under way at most.
    pub max_concurrency: u32,
    /// The longest that one failure holds others back.
    #[serde(with = "humantime_serde")]
    pub max_back_off: Duration,
}

/// `[queue.trace]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// How long after the end.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// Events that a watcher may lag behind.
    pub max_lag: usize,
    /// How often a watcher's key is asked about.
    #[serde(with = "humantime_serde")]
    pub recheck_watchers_every: Duration,
}

/// `[queue.sweep]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// How often.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// How late work must be to be looked for.
    #[serde(with = "humantime_serde")]
    pub overdue: Duration,
}

impl Config {
    /// The settings out of the defaults and what is laid over them; contradictions are mistakes, too.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        let mut config: Self = posthorn_service::config::load("queue", DEFAULTS, sources)?;
        // Who hears of the failure need not hear of the delay.
        config.notice.after.retain(|age| *age < config.give_up.after);
        let mistakes: Vec<Mistake> = config
            .contradictions()
            .map(|(setting, reason)| Mistake {
                setting: format!("queue.{setting}"),
                source: "all together".into(),
                reason: reason.into(),
            })
            .collect();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    fn contradictions(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let at_least_one = "must be at least 1";
        [
            (self.redis.partitions == 0, "redis.partitions", at_least_one),
            (self.accept.writers == 0, "accept.writers", at_least_one),
            (self.accept.max_batch == 0, "accept.max_batch", at_least_one),
            (self.accept.max_waiting == 0, "accept.max_waiting", at_least_one),
            (self.outcome.writers == 0, "outcome.writers", at_least_one),
            (self.outcome.max_batch == 0, "outcome.max_batch", at_least_one),
            (self.outcome.max_waiting == 0, "outcome.max_waiting", at_least_one),
            (self.lease.max_batch == 0, "lease.max_batch", at_least_one),
            (self.lease.poison_after == 0, "lease.poison_after", at_least_one),
            (self.trace.recheck_watchers_every.is_zero(), "trace.recheck_watchers_every", "must not be 0"),
            (self.destination.concurrency == 0, "destination.concurrency", at_least_one),
            (
                self.destination.max_concurrency < self.destination.concurrency,
                "destination.max_concurrency",
                "is less than destination.concurrency",
            ),
            (
                self.lease.length <= self.database.statement_timeout,
                "lease.length",
                "must be longer than database.statement_timeout: a lease must outlive the writing of its outcome",
            ),
            (
                self.notice.after.len() > 100 || !self.notice.after.is_sorted(),
                "notice.after",
                "must grow, and have at most 100 ages",
            ),
            (
                self.retry.schedule.iter().any(Duration::is_zero),
                "retry.schedule",
                "has a pause of no length: an attempt would follow the other without end",
            ),
        ]
        .into_iter()
        .filter_map(|(wrong, setting, reason)| wrong.then_some((setting, reason)))
    }

    /// The author of notices.
    pub(crate) fn mailer_daemon(&self) -> Address {
        Address::new("mailer-daemon", Host::Name(self.hostname.clone()))
            .expect("a constant local part is valid")
    }
}

fn domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Domain, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn periods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Period(#[serde(with = "humantime_serde")] Duration);
    Ok(Vec::<Period>::deserialize(deserializer)?.into_iter().map(|Period(length)| length).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(settings: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
        let command_line = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Config::load(&Sources { command_line, ..Default::default() })
    }

    #[test]
    fn the_defaults_are_complete_and_free_of_contradictions() {
        let config = with(&[]).unwrap();
        assert_eq!(config.give_up.after, Duration::from_secs(5 * 24 * 3600));
        assert_eq!(config.mailer_daemon().to_string(), "mailer-daemon@localhost");
    }

    #[test]
    fn the_names_that_tests_rely_on_are_there() {
        let config = with(&[
            ("queue.retry.schedule", r#"["2s","2s","4s"]"#),
            ("queue.notice.after", r#"["5s"]"#),
            ("queue.give_up.after", "20s"),
            ("queue.give_up.attempts", "5"),
        ])
        .unwrap();
        assert_eq!(config.retry.schedule, [2, 2, 4].map(Duration::from_secs));
        assert_eq!(config.notice.after, [Duration::from_secs(5)]);
        assert_eq!((config.give_up.after, config.give_up.attempts), (Duration::from_secs(20), 5));
    }

    #[test]
    fn nobody_is_told_of_a_delay_after_the_failure() {
        let config = with(&[("queue.give_up.after", "20s")]).unwrap();
        assert!(config.notice.after.is_empty(), "the default is 4 h");
    }

    #[test]
    fn contradictions_are_refused() {
        for settings in [
            [("queue.lease.length", "10s")],
            [("queue.accept.writers", "0")],
            [("queue.notice.after", r#"["2h", "1h"]"#)],
            [("queue.retry.schedule", r#"["0s"]"#)],
            [("queue.destination.max_concurrency", "2")],
        ] {
            assert_eq!(with(&settings).unwrap_err().len(), 1, "{settings:?}");
        }
    }
}
