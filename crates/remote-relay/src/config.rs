//! The settings; `defaults.toml` explains each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use posthorn_mail::Host;
use posthorn_service::config::{Mistake, Sources};
use posthorn_service::{Listen, setting};
use serde::Deserialize;

/// The section of this service.
pub const SECTION: &str = "relay";

/// The commented defaults, which are also the reference.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// All settings of remote-relay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URL of the queue.
    #[serde(deserialize_with = "setting::service_url")]
    pub queue: String,
    /// URL of the router.
    #[serde(deserialize_with = "setting::service_url")]
    pub router: String,
    /// What to call ourselves in EHLO.
    #[serde(deserialize_with = "setting::parsed")]
    pub hostname: Host,
    /// Further names of ours.
    #[serde(deserialize_with = "setting::all_parsed")]
    pub own_names: Vec<Host>,
    /// Where our own servers listen.
    pub own_addresses: Vec<OwnAddress>,
    /// The port of hosts found through the DNS.
    #[serde(deserialize_with = "setting::positive")]
    pub port: u16,
    /// The address to connect from.
    #[serde(deserialize_with = "setting::optional")]
    pub bind_address: Option<IpAddr>,
    /// Whether loopback, private and link-local addresses that the DNS gives may be connected to.
    pub allow_private_destinations: bool,
    /// Connections at the same time.
    #[serde(deserialize_with = "setting::positive")]
    pub connections: u32,
    /// Messages in a batch at most.
    #[serde(deserialize_with = "setting::positive")]
    pub max_batch: u32,
    /// Hosts that an attempt tries.
    #[serde(deserialize_with = "setting::positive")]
    pub max_hosts: usize,
    /// Addresses of each.
    #[serde(deserialize_with = "setting::positive")]
    pub addresses_per_host: usize,
    /// Recipients in a transaction.
    #[serde(deserialize_with = "setting::positive")]
    pub max_recipients: usize,
    /// Use STARTTLS where it is offered.
    pub starttls: bool,
    /// How long to go on asking a router that is away.
    #[serde(deserialize_with = "setting::length")]
    pub router_patience: Duration,
    /// What messages that must be converted may take of the memory.
    #[serde(deserialize_with = "setting::positive")]
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
    #[serde(deserialize_with = "setting::length")]
    pub idle: Duration,
    /// For how many messages in all.
    #[serde(deserialize_with = "setting::positive")]
    pub messages: u32,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection, and for TLS's handshake.
    #[serde(deserialize_with = "setting::period")]
    pub connect: Duration,
    /// For the greeting.
    #[serde(deserialize_with = "setting::period")]
    pub greeting: Duration,
    /// For EHLO, STARTTLS and RSET.
    #[serde(deserialize_with = "setting::period")]
    pub hello: Duration,
    /// For MAIL.
    #[serde(deserialize_with = "setting::period")]
    pub mail: Duration,
    /// For RCPT.
    #[serde(deserialize_with = "setting::period")]
    pub rcpt: Duration,
    /// For DATA.
    #[serde(deserialize_with = "setting::period")]
    pub data: Duration,
    /// For the network to take a part of the message.
    #[serde(deserialize_with = "setting::period")]
    pub block: Duration,
    /// For the reply to the final dot.
    #[serde(deserialize_with = "setting::period")]
    pub final_dot: Duration,
    /// For the reply to QUIT.
    #[serde(deserialize_with = "setting::period")]
    pub quit: Duration,
}

impl Config {
    /// Reads the settings; all mistakes at once.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        posthorn_service::config::load(SECTION, DEFAULTS, sources)
    }

    /// How the SMTP client is to talk.
    pub(crate) fn session(&self) -> posthorn_smtp::client::Settings {
        let Timeouts { greeting, hello, mail, rcpt, data, block, final_dot, quit, connect: _ } =
            self.timeouts;
        posthorn_smtp::client::Settings {
            hostname: self.hostname.to_string(),
            own_names: self.own_names.iter().map(Host::to_string).collect(),
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
    fn what_cannot_be_is_refused_by_name_and_all_at_once() {
        let wrong = [
            ("relay.queue", "banana"),
            ("relay.router", "https://router:7003"),
            ("relay.hostname", "bad host"),
            ("relay.own_names", "['a b']"),
            ("relay.own_addresses", "['mx.example.net']"),
            ("relay.port", "0"),
            ("relay.bind_address", "localhost"),
            ("relay.connections", "0"),
            ("relay.max_batch", "0"),
            ("relay.max_hosts", "0"),
            ("relay.addresses_per_host", "0"),
            ("relay.max_recipients", "0"),
            ("relay.conversion_memory", "0"),
            ("relay.reuse.messages", "0"),
            ("relay.timeouts.connect", "0s"),
            ("relay.timeouts.greeting", "0s"),
            ("relay.timeouts.hello", "0s"),
            ("relay.timeouts.mail", "0s"),
            ("relay.timeouts.rcpt", "0s"),
            ("relay.timeouts.data", "0s"),
            ("relay.timeouts.block", "0s"),
            ("relay.timeouts.final_dot", "0s"),
            ("relay.timeouts.quit", "0s"),
        ];
        let mistakes = with(&wrong).unwrap_err();
        let told: Vec<_> = mistakes.iter().map(|mistake| mistake.setting.as_str()).collect();
        assert_eq!(told, wrong.map(|(name, _)| name));
    }

    #[test]
    fn what_may_be_nothing_may_be() {
        with(&[("relay.router_patience", "0s"), ("relay.reuse.idle", "0s"), ("relay.listen.drain", "0s")])
            .unwrap();
    }
}
