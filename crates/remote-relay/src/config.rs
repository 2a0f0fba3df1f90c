//! The settings; `defaults.toml` explains each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use posthorn_service::Listen;
use posthorn_service::config::{Mistake, Sources};
use serde::{Deserialize, Deserializer};

/// The section of this service.
pub const SECTION: &str = "relay";

/// The commented defaults, which are also the reference.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// All settings of remote-relay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URL of the queue.
    pub queue: String,
    /// URL of the router.
    pub router: String,
    /// What to call ourselves in EHLO.
    pub hostname: String,
    /// Further names of ours.
    pub own_names: Vec<String>,
    /// Where our own servers listen.
    pub own_addresses: Vec<OwnAddress>,
    /// The port of hosts found through the DNS.
    pub port: u16,
    /// The address to connect from.
    #[serde(deserialize_with = "empty_is_none")]
    pub bind_address: Option<IpAddr>,
    /// Whether loopback, private and link-local addresses that the DNS gives may be connected to.
    pub allow_private_destinations: bool,
    /// Connections at the same time.
    pub connections: u32,
    /// Messages in a batch at most.
    pub max_batch: u32,
    /// Hosts that an attempt tries.
    pub max_hosts: usize,
    /// Addresses of each.
    pub addresses_per_host: usize,
    /// Recipients in a transaction.
    pub max_recipients: usize,
    /// Use STARTTLS where it is offered.
    pub starttls: bool,
    /// How long to go on asking a router that is away.
    #[serde(with = "humantime_serde")]
    pub router_patience: Duration,
    /// What messages that must be converted may take of the memory.
    pub conversion_memory: ByteSize,
    /// Where to serve.
    pub listen: Listen,
    /// Keeping connections open.
    pub reuse: Reuse,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// An address of ours, all its ports or one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OwnAddress {
    /// One port of it.
    Port(SocketAddr),
    /// All of it.
    Host(IpAddr),
}

impl OwnAddress {
    /// Whether this is the address, or has it.
    pub fn covers(self, address: SocketAddr) -> bool {
        match self {
            Self::Port(own) => own == address,
            Self::Host(own) => own == address.ip(),
        }
    }
}

/// Keeping connections open for the next message.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reuse {
    /// How long without work.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// For how many messages in all.
    pub messages: u32,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection, and for TLS's handshake.
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    /// For the greeting.
    #[serde(with = "humantime_serde")]
    pub greeting: Duration,
    /// For EHLO, STARTTLS and RSET.
    #[serde(with = "humantime_serde")]
    pub hello: Duration,
    /// For MAIL.
    #[serde(with = "humantime_serde")]
    pub mail: Duration,
    /// For RCPT.
    #[serde(with = "humantime_serde")]
    pub rcpt: Duration,
    /// For DATA.
    #[serde(with = "humantime_serde")]
    pub data: Duration,
    /// For the network to take a part of the message.
    #[serde(with = "humantime_serde")]
    pub block: Duration,
    /// For the reply to the final dot.
    #[serde(with = "humantime_serde")]
    pub final_dot: Duration,
    /// For the reply to QUIT.
    #[serde(with = "humantime_serde")]
    pub quit: Duration,
}

impl Config {
    /// Reads the settings; all mistakes at once.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        posthorn_service::config::load(SECTION, DEFAULTS, sources)
    }

    /// What contradicts itself, one line each.
    pub fn contradictions(&self) -> Vec<String> {
        let zeros = [
            (self.connections == 0, "connections"),
            (self.max_batch == 0, "max_batch"),
            (self.max_hosts == 0, "max_hosts"),
            (self.addresses_per_host == 0, "addresses_per_host"),
            (self.max_recipients == 0, "max_recipients"),
            (self.reuse.messages == 0, "reuse.messages"),
            (self.port == 0, "port"),
        ];
        let at_least_one = |(_, name): &(bool, &str)| format!("{SECTION}.{name} must be at least 1");
        let mut found: Vec<String> = zeros.iter().filter(|(zero, _)| *zero).map(at_least_one).collect();
        if self.hostname.parse::<posthorn_mail::Host>().is_err() {
            found.push(format!("{SECTION}.hostname must be a domain name or an address literal"));
        }
        found
    }

    /// How the SMTP client is to talk.
    pub(crate) fn session(&self) -> posthorn_smtp::client::Settings {
        let Timeouts { greeting, hello, mail, rcpt, data, block, final_dot, quit, connect: _ } =
            self.timeouts;
        posthorn_smtp::client::Settings {
            hostname: self.hostname.clone(),
            own_names: self.own_names.clone(),
            starttls: self.starttls,
            timeouts: posthorn_smtp::client::Timeouts {
                greeting,
                hello,
                mail,
                rcpt,
                data,
                block,
                final_dot,
                quit,
            },
        }
    }
}

fn empty_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(settings: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
        let command_line = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Config::load(&Sources { command_line, ..Sources::default() })
    }

    #[test]
    fn the_defaults_are_right() {
        let config = with(&[]).unwrap();
        assert_eq!(config.contradictions(), Vec::<String>::new());
        assert_eq!((config.port, config.connections, config.bind_address), (25, 200, None));
        assert_eq!(config.session().timeouts, posthorn_smtp::client::Timeouts::default());
    }

    #[test]
    fn addresses_are_read() {
        let config = with(&[
            ("relay.own_addresses", "['192.0.2.1', '[2001:db8::1]:25']"),
            ("relay.bind_address", "192.0.2.9"),
        ])
        .unwrap();
        assert_eq!(config.bind_address, Some("192.0.2.9".parse().unwrap()));
        let covered =
            |address: &str| config.own_addresses.iter().any(|own| own.covers(address.parse().unwrap()));
        assert!(covered("192.0.2.1:2525") && covered("[2001:db8::1]:25"));
        assert!(!covered("[2001:db8::1]:26") && !covered("192.0.2.2:25"));
    }

    #[test]
    fn contradictions_are_named() {
        let config = with(&[("relay.connections", "0"), ("relay.hostname", "a b")]).unwrap();
        assert_eq!(config.contradictions().len(), 2);
    }
}
