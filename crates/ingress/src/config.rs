//! The settings of `[ingress]`; `defaults.toml` explains each.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use posthorn_mail::{Address, Host};
use posthorn_service::config::{Contradiction, Mistake, Sources, load_consistent};
use posthorn_service::{Listen, Networks, setting};
use posthorn_smtp::server::Settings;
use serde::Deserialize;

use crate::MESSAGE_LIMIT;

/// The commented defaults, which are the reference.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// `[ingress]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this server calls itself.
    #[serde(deserialize_with = "setting::parsed")]
    pub hostname: Host,
    /// Whom `<Postmaster>` without a domain means; empty: postmaster@ the hostname.
    #[serde(deserialize_with = "setting::optional")]
    pub postmaster: Option<Address>,
    /// URL of the queue.
    #[serde(deserialize_with = "setting::service_url")]
    pub queue: String,
    /// URL of the router.
    #[serde(deserialize_with = "setting::service_url")]
    pub router: String,
    /// For whom mail is relayed.
    pub trusted_networks: Networks,
    /// Where gRPC and HTTP listen.
    pub listen: Listen,
    /// SMTP from other servers.
    pub smtp: Smtp,
    /// SMTP from mail clients.
    pub submission: Smtp,
    /// What a client may do.
    pub limits: Limits,
    /// How messages go to the queue.
    pub handover: Handover,
}

/// `[ingress.smtp]` and `[ingress.submission]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Addresses and ports to listen on.
    pub listen: Vec<SocketAddr>,
}

/// `[ingress.limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Octets of a message.
    #[serde(deserialize_with = "setting::positive")]
    pub message_size: ByteSize,
    /// Octets of its header section.
    #[serde(deserialize_with = "setting::positive")]
    pub header_size: ByteSize,
    /// Octets of all messages that are in memory on their way in.
    pub buffered: ByteSize,
    /// Recipients of a transaction.
    #[serde(deserialize_with = "setting::positive")]
    pub recipients: usize,
    /// Received lines before a loop is declared.
    #[serde(deserialize_with = "setting::positive")]
    pub hops: u32,
    /// SMTP connections in all.
    #[serde(deserialize_with = "setting::positive")]
    pub connections: usize,
    /// SMTP connections of a client.
    #[serde(deserialize_with = "setting::positive")]
    pub connections_per_client: usize,
    /// Octets of a command line.
    pub command_line: usize,
    /// Octets of a line of content.
    pub text_line: ByteSize,
    /// Refusals of a session.
    #[serde(deserialize_with = "setting::positive")]
    pub errors: u32,
    /// Commands of a session.
    #[serde(deserialize_with = "setting::positive")]
    pub commands: u32,
    /// Transactions of a session.
    #[serde(deserialize_with = "setting::positive")]
    pub transactions: u32,
    /// For a command.
    #[serde(deserialize_with = "setting::period")]
    pub command_timeout: Duration,
    /// For a piece of content.
    #[serde(deserialize_with = "setting::period")]
    pub data_timeout: Duration,
    /// For the session.
    #[serde(deserialize_with = "setting::period")]
    pub session_timeout: Duration,
}

/// `[ingress.handover]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// Messages up to this size go whole.
    pub inline: ByteSize,
    /// Calls under way at once.
    #[serde(deserialize_with = "setting::positive")]
    pub calls: usize,
    /// Messages in a call.
    #[serde(deserialize_with = "setting::positive")]
    pub batch_messages: usize,
    /// Octets in a call.
    #[serde(deserialize_with = "setting::positive")]
    pub batch_size: ByteSize,
    /// Octets that may wait.
    pub waiting: ByteSize,
    /// For the queue's answer.
    #[serde(deserialize_with = "setting::period")]
    pub timeout: Duration,
    /// For the router's answer.
    #[serde(deserialize_with = "setting::period")]
    pub verify_timeout: Duration,
    /// Addresses of which it is remembered what the router said.
    pub verified: u64,
}

impl Config {
    /// Reads the section out of the sources, over the defaults. All mistakes are returned at once.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        load_consistent("ingress", DEFAULTS, sources, Self::contradictions)
    }

    fn contradictions(&self) -> Vec<Contradiction> {
        let (limits, handover) = (&self.limits, &self.handover);
        // A message goes whole when it is small, or when it is nothing but a header section.
        let whole = octets(handover.inline).max(octets(limits.header_size));
        vec![
            (
                limits.command_line < 512,
                &["limits.command_line"],
                "must be 512 at least (RFC 5321 §4.5.3.1.4)",
            ),
            (
                octets(limits.text_line) < 1000,
                &["limits.text_line"],
                "must be 1000 at least (RFC 5321 §4.5.3.1.6)",
            ),
            (
                octets(limits.buffered) < MESSAGE_LIMIT.max(whole.saturating_mul(2)),
                &["limits.buffered", "handover.inline", "limits.header_size"],
                "must be 64MiB at least, and twice handover.inline and twice limits.header_size",
            ),
            (
                octets(handover.batch_size).saturating_add(whole) > MESSAGE_LIMIT / 2,
                &["handover.batch_size", "handover.inline", "limits.header_size"],
                "with handover.inline or limits.header_size is more than 32 MiB, too much for a call",
            ),
            (
                octets(handover.waiting) < whole.saturating_mul(2),
                &["handover.waiting", "handover.inline", "limits.header_size"],
                "must be twice handover.inline and twice limits.header_size at least",
            ),
        ]
    }

    /// What the SMTP sessions need to know of the settings.
    pub(crate) fn session(&self) -> Settings {
        let postmaster = self.postmaster.clone().unwrap_or_else(|| {
            Address::new("postmaster", self.hostname.clone()).expect("postmaster is a local part")
        });
        let limits = &self.limits;
        Settings {
            message_size: limits.message_size.as_u64(),
            recipients: limits.recipients,
            command_line: limits.command_line,
            text_line: octets(limits.text_line),
            errors: limits.errors,
            commands: limits.commands,
            transactions: limits.transactions,
            command_timeout: limits.command_timeout,
            data_timeout: limits.data_timeout,
            session_timeout: limits.session_timeout,
            ..Settings::new(self.hostname.to_string(), postmaster)
        }
    }
}

/// A size as a number of octets in memory.
pub(crate) fn octets(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_right() {
        let config = Config::load(&Sources::default()).unwrap();
        assert_eq!(config.session().postmaster.to_string(), "postmaster@localhost");
        assert_eq!(config.limits.message_size.as_u64(), 50 << 20);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_and_all_at_once() {
        let wrong = [
            ("hostname", "two words"),
            ("postmaster", "nobody"),
            ("queue", "not a url"),
            ("router", "router:7003"),
            ("limits.message_size", "0"),
            ("limits.header_size", "0"),
            ("limits.recipients", "0"),
            ("limits.hops", "0"),
            ("limits.connections", "0"),
            ("limits.connections_per_client", "0"),
            ("limits.errors", "0"),
            ("limits.commands", "0"),
            ("limits.transactions", "0"),
            ("limits.command_timeout", "0s"),
            ("limits.data_timeout", "0s"),
            ("limits.session_timeout", "0s"),
            ("handover.calls", "0"),
            ("handover.batch_messages", "0"),
            ("handover.batch_size", "0"),
            ("handover.timeout", "0s"),
            ("handover.verify_timeout", "0s"),
            ("limits.command_line", "511"),
            ("limits.text_line", "0"),
        ];
        assert_eq!(mistakes(&wrong), wrong.map(|(name, _)| format!("ingress.{name}")));
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        for (name, value) in
            [("limits.buffered", "1MiB"), ("handover.batch_size", "60MiB"), ("handover.waiting", "1MiB")]
        {
            assert_eq!(mistakes(&[(name, value)]), [format!("ingress.{name}")]);
        }
    }

    fn mistakes(settings: &[(&str, &str)]) -> Vec<String> {
        let said = settings.iter().map(|(name, value)| (format!("ingress.{name}"), (*value).to_owned()));
        let sources = Sources { command_line: said.collect(), ..Sources::default() };
        let mistakes = Config::load(&sources).err().unwrap_or_default();
        mistakes.into_iter().map(|mistake| mistake.setting).collect()
    }
}
