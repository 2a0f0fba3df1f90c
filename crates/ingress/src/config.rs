//! The settings of `[ingress]`; `defaults.toml` explains each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use posthorn_mail::{Address, Host};
use posthorn_service::config::{Mistake, Sources, load};
use posthorn_service::{Error, Listen};
use posthorn_smtp::server::Settings;
use serde::{Deserialize, Deserializer};

/// The commented defaults, which are the reference.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// `[ingress]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this server calls itself.
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

/// IP networks.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether one of them has this address; an IPv4 address may come as IPv6.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Config {
    /// Reads the section out of the sources, over the defaults. All mistakes are returned at once.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        load("ingress", DEFAULTS, sources)
    }

    /// What the SMTP sessions need to know of the settings.
    pub(crate) fn session(&self) -> Result<Settings, Error> {
        let wrong = |e| Error::Config(format!("ingress.hostname: {}: {e}", self.hostname));
        let host: Host = self.hostname.parse().map_err(wrong)?;
        let postmaster = match &self.postmaster {
            Some(address) => address.clone(),
            None => Address::new("postmaster", host).map_err(Error::fatal)?,
        };
        let limits = &self.limits;
        Ok(Settings {
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
        })
    }
}

/// A size as a number of octets in memory.
pub(crate) fn octets(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
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
        assert!(config.session().is_ok());
        assert_eq!(config.limits.message_size.as_u64(), 50 << 20);
    }

    #[test]
    fn networks_have_their_addresses() {
        let networks = Config::load(&Sources::default()).unwrap().trusted_networks;
        for (address, trusted) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(networks.contain(address.parse().unwrap()), trusted, "{address}");
        }
    }
}
