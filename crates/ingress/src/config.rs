//! The settings of `[ingress]`; `defaults.toml` explains each.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use posthorn_mail::{Address, Host};
use posthorn_service::config::{Mistake, Sources, load};
use posthorn_service::{Listen, Networks};
use posthorn_smtp::server::Settings;
use serde::{Deserialize, Deserializer};

use crate::MESSAGE_LIMIT;

/// The commented defaults, which are the reference.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// `[ingress]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this server calls itself.
    #[serde(deserialize_with = "hostname")]
    pub hostname: String,
    /// Whom `<Postmaster>` without a domain means; empty: postmaster@ the hostname.
    #[serde(deserialize_with = "optional_address")]
    pub postmaster: Option<Address>,
    /// URL of the queue.
    pub queue: String,
    /// URL of the router.
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
    pub message_size: ByteSize,
    /// Octets of its header section.
    pub header_size: ByteSize,
    /// Recipients of a transaction.
    pub recipients: usize,
    /// Received lines before a loop is declared.
    pub hops: u32,
    /// SMTP connections in all.
    pub connections: usize,
    /// SMTP connections of a client.
    pub connections_per_client: usize,
    /// Octets of a command line.
    pub command_line: usize,
    /// Octets of a line of content.
    pub text_line: ByteSize,
    /// Refusals of a session.
    pub errors: u32,
    /// Commands of a session.
    pub commands: u32,
    /// Transactions of a session.
    pub transactions: u32,
    /// For a command.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// For a piece of content.
    #[serde(with = "humantime_serde")]
    pub data_timeout: Duration,
    /// For the session.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
}

/// `[ingress.handover]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// Messages up to this size go whole.
    pub inline: ByteSize,
    /// Calls under way at once.
    pub calls: usize,
    /// Messages in a call.
    pub batch_messages: usize,
    /// Octets in a call.
    pub batch_size: ByteSize,
    /// Octets that may wait.
    pub waiting: ByteSize,
    /// For the queue's answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// For the router's answer.
    #[serde(with = "humantime_serde")]
    pub verify_timeout: Duration,
}

impl Config {
    /// Reads the section out of the sources, over the defaults. All mistakes are returned at once.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        let config: Self = load("ingress", DEFAULTS, sources)?;
        let mistakes = config.contradictions();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    fn contradictions(&self) -> Vec<Mistake> {
        let (limits, handover) = (&self.limits, &self.handover);
        // A message goes whole when it is small, or when it is nothing but a header section.
        let whole = octets(handover.inline).max(octets(limits.header_size));
        let command_line = "must be 512 at least (RFC 5321 §4.5.3.1.4)";
        let wrong = [
            (limits.recipients == 0, "limits.recipients", "must not be 0"),
            (limits.command_line < 512, "limits.command_line", command_line),
            (limits.connections == 0, "limits.connections", "must not be 0"),
            (limits.connections_per_client == 0, "limits.connections_per_client", "must not be 0"),
            (limits.errors == 0, "limits.errors", "must not be 0"),
            (limits.commands == 0, "limits.commands", "must not be 0"),
            (limits.transactions == 0, "limits.transactions", "must not be 0"),
            (handover.calls == 0, "handover.calls", "must not be 0"),
            (handover.batch_messages == 0, "handover.batch_messages", "must not be 0"),
            (
                octets(handover.batch_size).saturating_add(whole) > MESSAGE_LIMIT / 2,
                "handover.batch_size",
                "with handover.inline or limits.header_size is more than 32 MiB, too much for a call",
            ),
            (
                octets(handover.waiting) < whole.saturating_mul(2),
                "handover.waiting",
                "must be twice handover.inline and twice limits.header_size at least",
            ),
        ];
        let mistake = |(_, setting, reason): (bool, &str, &str)| Mistake {
            setting: format!("ingress.{setting}"),
            source: "all together".into(),
            reason: reason.into(),
        };
        wrong.into_iter().filter(|(is_wrong, ..)| *is_wrong).map(mistake).collect()
    }

    /// What the SMTP sessions need to know of the settings.
    pub(crate) fn session(&self) -> Settings {
        let postmaster = self.postmaster.clone().unwrap_or_else(|| {
            let host = self.hostname.parse().expect("it was parsed when it was read");
            Address::new("postmaster", host).expect("postmaster is a local part")
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
            ..Settings::new(&self.hostname, postmaster)
        }
    }
}

/// A size as a number of octets in memory.
pub(crate) fn octets(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// A host name or an address literal, as it is to be shown.
fn hostname<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let host: Host = text.parse().map_err(serde::de::Error::custom)?;
    Ok(host.to_string())
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

    #[test]
    fn the_defaults_are_right() {
        let config = Config::load(&Sources::default()).unwrap();
        assert_eq!(config.session().postmaster.to_string(), "postmaster@localhost");
        assert_eq!(config.limits.message_size.as_u64(), 50 << 20);
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        for (name, value) in [
            ("hostname", "two words"),
            ("postmaster", "nobody"),
            ("limits.recipients", "0"),
            ("limits.errors", "0"),
            ("handover.batch_size", "60MiB"),
            ("handover.waiting", "1MiB"),
        ] {
            let command_line = vec![(format!("ingress.{name}"), value.to_owned())];
            let mistakes = Config::load(&Sources { command_line, ..Sources::default() }).unwrap_err();
            assert_eq!(mistakes[0].setting, format!("ingress.{name}"), "{mistakes:?}");
        }
    }
}
