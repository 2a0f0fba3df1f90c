//! Networks that are trusted.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Deserialize;

/// IP networks: a setting of every service that programs call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether one of them has this address; an IPv4 address may come as IPv6.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether a call comes from one of them; one from nowhere does not.
    pub fn have(&self, peer: Option<SocketAddr>) -> bool {
        peer.is_some_and(|peer| self.contain(peer.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_their_addresses() {
        let networks = Networks(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        for (peer, trusted) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("192.0.2.1:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            assert_eq!(networks.have(Some(peer.parse().unwrap())), trusted, "{peer}");
        }
        assert!(!networks.have(None));
    }
}
