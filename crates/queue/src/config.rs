//! The settings of `[queue]`; `defaults.toml` explains each.

use std::time::Duration;

use bytesize::ByteSize;
use posthorn_database::Database;
use posthorn_mail::{Address, Domain, Host};
use posthorn_service::config::{Contradiction, Mistake, Sources, load_consistent};
use posthorn_service::{Listen, Networks, setting};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::grpc::MAX_MESSAGE;

/// The commented defaults, which are the reference.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// `[queue]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this installation calls itself in notices.
    #[serde(deserialize_with = "setting::parsed")]
    pub hostname: Domain,
    /// URL of the router.
    #[serde(deserialize_with = "setting::service_url")]
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
    #[serde(deserialize_with = "redis_url")]
    pub url: String,
    /// What every key begins with.
    pub prefix: String,
    /// How long a command may take.
    #[serde(deserialize_with = "setting::period")]
    pub timeout: Duration,
    /// Parts that each kind of work is cut into; at least 1.
    #[serde(deserialize_with = "setting::positive")]
    pub partitions: u16,
}

/// `[queue.accept]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// Transactions at the same time.
    #[serde(deserialize_with = "setting::positive")]
    pub writers: usize,
    /// The most messages in one.
    #[serde(deserialize_with = "setting::positive")]
    pub max_batch: usize,
    /// The most bytes in one.
    #[serde(deserialize_with = "setting::positive")]
    pub max_batch_bytes: ByteSize,
    /// Messages that may wait for one.
    #[serde(deserialize_with = "setting::positive")]
    pub max_waiting: usize,
    /// The largest message.
    #[serde(deserialize_with = "setting::positive")]
    pub max_message: ByteSize,
    /// The most recipients of a message.
    #[serde(deserialize_with = "setting::positive")]
    pub max_recipients: usize,
    /// How long a key is remembered.
    #[serde(deserialize_with = "setting::period")]
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
    #[serde(deserialize_with = "setting::period")]
    pub count_every: Duration,
}

/// `[queue.retry]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The pauses; empty: the built-in ones.
    #[serde(deserialize_with = "setting::periods")]
    pub schedule: Vec<Duration>,
    /// The pause after an uncertain end.
    #[serde(deserialize_with = "setting::period")]
    pub uncertain: Duration,
}

/// `[queue.notice]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Ages of a message at which its sender is told of the delay.
    #[serde(deserialize_with = "setting::periods")]
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
    #[serde(deserialize_with = "setting::period")]
    pub after: Duration,
    /// The number of attempts; 0 is no limit.
    pub attempts: u32,
}

/// `[queue.lease]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// How long a worker may be silent about a batch.
    #[serde(deserialize_with = "setting::period")]
    pub length: Duration,
    /// The same once its stream is broken.
    #[serde(deserialize_with = "setting::length")]
    pub orphaned: Duration,
    /// The most messages led from the door to the mailbox without a stop at the ledger.
    pub in_hand: usize,
    /// Leases without an outcome after which an item is set aside.
    #[serde(deserialize_with = "setting::positive")]
    pub poison_after: u8,
    /// The most items in a batch.
    #[serde(deserialize_with = "setting::positive")]
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
    #[serde(deserialize_with = "setting::positive")]
    pub writers: usize,
    /// The most items in one.
    #[serde(deserialize_with = "setting::positive")]
    pub max_batch: usize,
    /// Reports that may wait for one.
    #[serde(deserialize_with = "setting::positive")]
    pub max_waiting: usize,
}

/// `[queue.destination]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Batches under way at first.
    #[serde(deserialize_with = "setting::positive")]
    pub concurrency: u32,
    /// Batches under way at most.
    #[serde(deserialize_with = "setting::positive")]
    pub max_concurrency: u32,
    /// The longest that one failure holds others back.
    #[serde(deserialize_with = "setting::length")]
    pub max_back_off: Duration,
}

/// `[queue.trace]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// How long after the end.
    #[serde(deserialize_with = "setting::length")]
    pub keep: Duration,
    /// Events that a watcher may lag behind.
    #[serde(deserialize_with = "setting::positive")]
    pub max_lag: usize,
    /// How often a watcher's key is asked about.
    #[serde(deserialize_with = "setting::period")]
    pub recheck_watchers_every: Duration,
}

/// `[queue.sweep]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// How often.
    #[serde(deserialize_with = "setting::period")]
    pub every: Duration,
    /// How late work must be to be looked for.
    #[serde(deserialize_with = "setting::length")]
    pub overdue: Duration,
}

impl Config {
    /// The settings out of the defaults and what is laid over them; contradictions are mistakes, too.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        let mut config = load_consistent("queue", DEFAULTS, sources, Self::contradictions)?;
        // Who hears of the failure need not hear of the delay.
        config.notice.after.retain(|age| *age < config.give_up.after);
        Ok(config)
    }

    fn contradictions(&self) -> Vec<Contradiction> {
        vec![
            (
                self.destination.max_concurrency < self.destination.concurrency,
                &["destination.max_concurrency", "destination.concurrency"],
                "is less than destination.concurrency",
            ),
            (
                self.lease.length <= self.database.statement_timeout,
                &["lease.length", "database.statement_timeout"],
                "must be longer than database.statement_timeout: a lease must outlive the writing of its outcome",
            ),
            (
                self.lease.inline_batch.as_u64() > MAX_MESSAGE as u64 / 2,
                &["lease.inline_batch"],
                "is more than 32 MiB, too much for a message of the stream",
            ),
            (
                self.notice.after.len() > 100 || !self.notice.after.is_sorted(),
                &["notice.after"],
                "must grow, and have at most 100 ages",
            ),
        ]
    }

    /// The author of notices.
    pub(crate) fn mailer_daemon(&self) -> Address {
        Address::new("mailer-daemon", Host::Name(self.hostname.clone()))
            .expect("a constant local part is valid")
    }
}

fn redis_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    redis::Client::open(url.as_str()).map_err(D::Error::custom)?;
    Ok(url)
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
    fn what_cannot_be_is_refused_by_name_and_all_at_once() {
        let wrong = [
            ("queue.hostname", "a b"),
            ("queue.router", "banana"),
            ("queue.database.url", "mysql://x"),
            ("queue.database.max_connections", "0"),
            ("queue.redis.url", "banana"),
            ("queue.redis.timeout", "0s"),
            ("queue.redis.partitions", "0"),
            ("queue.accept.writers", "0"),
            ("queue.accept.max_batch", "0"),
            ("queue.accept.max_batch_bytes", "0"),
            ("queue.accept.max_waiting", "0"),
            ("queue.accept.max_message", "0"),
            ("queue.accept.max_recipients", "0"),
            ("queue.accept.idempotency", "0s"),
            ("queue.spool.count_every", "0s"),
            ("queue.retry.schedule", "['0s']"),
            ("queue.retry.uncertain", "0s"),
            ("queue.notice.after", "['0s']"),
            ("queue.give_up.after", "0s"),
            ("queue.lease.length", "0s"),
            ("queue.lease.poison_after", "0"),
            ("queue.lease.max_batch", "0"),
            ("queue.outcome.writers", "0"),
            ("queue.outcome.max_batch", "0"),
            ("queue.outcome.max_waiting", "0"),
            ("queue.destination.concurrency", "0"),
            ("queue.destination.max_concurrency", "0"),
            ("queue.trace.max_lag", "0"),
            ("queue.trace.recheck_watchers_every", "0s"),
            ("queue.sweep.every", "0s"),
            ("queue.lease.inline_batch", "33MiB"),
        ];
        let mistakes = with(&wrong).unwrap_err();
        let told: Vec<_> = mistakes.iter().map(|mistake| mistake.setting.as_str()).collect();
        assert_eq!(told, wrong.map(|(name, _)| name));
    }

    #[test]
    fn what_may_be_nothing_may_be() {
        with(&[
            ("queue.spool.max_messages", "0"),
            ("queue.spool.max_bytes", "0"),
            ("queue.notice.return_full_up_to", "0"),
            ("queue.notice.return_at_most", "0"),
            ("queue.give_up.attempts", "0"),
            ("queue.lease.orphaned", "0s"),
            ("queue.lease.in_hand", "0"),
            ("queue.lease.inline_up_to", "0"),
            ("queue.lease.inline_batch", "0"),
            ("queue.destination.max_back_off", "0s"),
            ("queue.trace.keep", "0s"),
            ("queue.sweep.overdue", "0s"),
        ])
        .unwrap();
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        for (name, value) in [
            ("queue.lease.length", "10s"),
            ("queue.notice.after", r#"["2h", "1h"]"#),
            ("queue.destination.max_concurrency", "2"),
        ] {
            let mistakes = with(&[(name, value)]).unwrap_err();
            assert_eq!(mistakes.iter().map(|m| m.setting.as_str()).collect::<Vec<_>>(), [name]);
        }
    }
}
