//! Which addresses an attempt tries, in which order. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use posthorn_api::routing::v1::Hosts;
use posthorn_mail::{EnhancedStatus, Status};

use crate::Config;

/// A server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its name, for TLS and outcomes.
    pub(crate) host: String,
    pub(crate) address: SocketAddr,
}

/// The servers to try in order, never empty; or why there are none.
///
/// Hosts behind one that is ourselves are left out: the mail is on its way from them to us (RFC 5321 §5.1).
pub(crate) fn candidates(hosts: &Hosts, config: &Config) -> Result<Vec<Candidate>, Status> {
    let (mut found, mut refused) = (Vec::new(), None);
    'hosts: for host in hosts.hosts.iter().take(config.max_hosts) {
        let port = u16::try_from(host.port).ok().filter(|port| *port != 0).unwrap_or(config.port);
        let mut left = config.addresses_per_host;
        for ip in host.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
            let address = SocketAddr::new(ip.to_canonical(), port);
            if config.own_addresses.iter().any(|own| own.covers(address)) {
                refused = Some(is_ourselves(&host.name, address));
                break 'hosts;
            }
            if !may_connect(address.ip(), config.allow_private_destinations || host.by_route) {
                refused.get_or_insert_with(|| is_private(&host.name, address.ip()));
            } else if left > 0 {
                left -= 1;
                found.push(Candidate { host: host.name.clone(), address });
            }
        }
    }
    if found.is_empty() { Err(refused.unwrap_or_else(no_address)) } else { Ok(found) }
}

fn is_ourselves(host: &str, address: SocketAddr) -> Status {
    let text = format!("mail loops back to myself: {host} is at {address}");
    Status::new(554, EnhancedStatus::new(5, 4, 6), text)
}

fn is_private(host: &str, ip: IpAddr) -> Status {
    let text = format!("{host} has the address {ip}, which is not one of the public internet");
    Status::new(550, EnhancedStatus::new(5, 4, 4), text)
}

fn no_address() -> Status {
    Status::new(451, EnhancedStatus::new(4, 4, 3), "the hosts of the domain have no address")
}

/// Whether mail may go to this address.
fn may_connect(ip: IpAddr, private_too: bool) -> bool {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() => false,
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => false,
        IpAddr::V4(ip) => private_too || !is_private_v4(ip),
        IpAddr::V6(ip) => private_too || !is_private_v6(ip),
    }
}

/// RFC 1918, RFC 6598 (shared), RFC 3927 (link-local), loopback, "this network", RFC 6890 (protocol assignments), RFC
/// 2544 (benchmarks), and what is reserved.
fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && (18..20).contains(&b))
}

/// Loopback, RFC 4193 (unique local), RFC 4291 (link-local, the old site-local), and what leads to a private IPv4.
fn is_private_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        || (ip.segments()[0] & 0xffc0) == 0xfec0
        || within(ip).is_some_and(is_private_v4)
}

/// The IPv4 address that an IPv6 address leads to: `::ffff:a.b.c.d` and `::a.b.c.d` (RFC 4291 §2.5.5), NAT64's
/// `64:ff9b::a.b.c.d` (RFC 6052 §2.1), 6to4's `2002:ab:cd::` (RFC 3056 §2).
fn within(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => ip.to_ipv4(),
    }
}

#[cfg(test)]
mod tests {
    use posthorn_api::routing::v1::Host;
    use posthorn_service::config::Sources;

    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        let command_line = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Config::load(&Sources { command_line, ..Sources::default() }).unwrap()
    }

    fn hosts(hosts: &[(&str, &[&str], u32)]) -> Hosts {
        let host = |(name, addresses, port): &(&str, &[&str], u32)| Host {
            name: (*name).to_owned(),
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
            port: *port,
            by_route: false,
        };
        Hosts { destination: "d".to_owned(), hosts: hosts.iter().map(host).collect() }
    }

    fn chosen(of: &Hosts, config: &Config) -> Result<Vec<String>, String> {
        let shown = |all: Vec<Candidate>| all.iter().map(|c| format!("{} {}", c.host, c.address)).collect();
        candidates(of, config).map(shown).map_err(|status| status.to_string())
    }

    #[test]
    fn hosts_and_addresses_are_tried_in_order_up_to_the_limits() {
        let config = config(&[("relay.max_hosts", "2")]);
        let of = hosts(&[
            ("a", &["192.0.2.1", "192.0.2.2", "192.0.2.3"], 0),
            ("b", &["2001:db8::1"], 2525),
            ("c", &["192.0.2.4"], 0),
        ]);
        assert_eq!(
            chosen(&of, &config).unwrap(),
            ["a 192.0.2.1:25", "a 192.0.2.2:25", "b [2001:db8::1]:2525"]
        );
    }

    #[test]
    fn private_addresses_are_refused_unless_allowed() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.1.2.3",
            "240.0.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "64:ff9b::10.0.0.1",
            "64:ff9b::127.0.0.1",
            "2002:a00:1::1",
            "2002:7f00:1::",
        ] {
            let of = hosts(&[("a", &[address], 0)]);
            let refused = chosen(&of, &config(&[])).unwrap_err();
            assert!(refused.starts_with("550 5.4.4 a has the address"), "{address}: {refused}");
            assert!(chosen(&of, &config(&[("relay.allow_private_destinations", "true")])).is_ok());
        }
        for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1"] {
            let of = hosts(&[("a", &[address], 0)]);
            assert!(chosen(&of, &config(&[("relay.allow_private_destinations", "true")])).is_err());
        }
        for address in ["192.0.1.1", "198.20.0.1", "64:ff9b::192.0.2.1", "2002:c000:201::1", "2001:db8::1"] {
            let of = hosts(&[("a", &[address], 0)]);
            assert!(chosen(&of, &config(&[])).is_ok(), "{address}");
        }
        let mut routed = hosts(&[("smart", &["10.0.0.1"], 0)]);
        routed.hosts[0].by_route = true;
        assert_eq!(chosen(&routed, &config(&[])).unwrap(), ["smart 10.0.0.1:25"], "an operator's route");
        // One that is public suffices.
        let of = hosts(&[("a", &["10.0.0.1", "192.0.2.1"], 0)]);
        assert_eq!(chosen(&of, &config(&[])).unwrap(), ["a 192.0.2.1:25"]);
    }

    #[test]
    fn nothing_goes_to_ourselves_or_beyond() {
        let config = config(&[("relay.own_addresses", "['192.0.2.2']")]);
        let of = hosts(&[("a", &["192.0.2.1"], 0), ("us", &["192.0.2.2"], 0), ("c", &["192.0.2.3"], 0)]);
        assert_eq!(chosen(&of, &config).unwrap(), ["a 192.0.2.1:25"]);
        let of = hosts(&[("us", &["192.0.2.2"], 0), ("c", &["192.0.2.3"], 0)]);
        let refused = chosen(&of, &config).unwrap_err();
        assert_eq!(refused, "554 5.4.6 mail loops back to myself: us is at 192.0.2.2:25");
    }
}
