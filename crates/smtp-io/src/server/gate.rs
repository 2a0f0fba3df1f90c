//! How many connections there may be.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections, in all and by client; shared by the listeners of a process.
#[derive(Debug)]
pub struct Gate {
    all: usize,
    per_client: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Connections in all.
    All,
    /// Connections of this client.
    Client,
}

/// The place of a connection; free again when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    client: IpAddr,
}

impl Gate {
    /// A gate with these limits.
    pub fn new(all: usize, per_client: usize) -> Arc<Self> {
        Arc::new(Self { all, per_client, inside: Mutex::default() })
    }

    /// A place for a connection from this address, if there is one.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Pass, Full> {
        let client = client_of(address);
        let mut inside = self.inside();
        if inside.all >= self.all {
            return Err(Full::All);
        }
        let of_client = inside.by_client.entry(client).or_default();
        if *of_client >= self.per_client {
            return Err(Full::Client);
        }
        *of_client += 1;
        inside.all += 1;
        Ok(Pass { gate: Arc::clone(self), client })
    }

    /// Connections that there are.
    pub fn connections(&self) -> usize {
        self.inside().all
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // The counts are right after each statement: a panic elsewhere does not spoil them.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        inside.all -= 1;
        if let Some(of_client) = inside.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                inside.by_client.remove(&self.client);
            }
        }
    }
}

/// Who counts as one client: an IPv4 address, or the network of an IPv6 address, since a site has all of a /64.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_limited_and_come_free() {
        let gate = Gate::new(3, 2);
        let first = gate.admit(ip("192.0.2.1")).unwrap();
        let _second = gate.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(gate.admit(ip("192.0.2.1")).unwrap_err(), Full::Client);
        let _third = gate.admit(ip("192.0.2.2")).unwrap();
        assert_eq!(gate.admit(ip("192.0.2.3")).unwrap_err(), Full::All);
        drop(first);
        assert!(gate.admit(ip("192.0.2.1")).is_ok());
        assert_eq!(gate.connections(), 2);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let gate = Gate::new(9, 1);
        let _pass = gate.admit(ip("2001:db8::1")).unwrap();
        assert_eq!(gate.admit(ip("2001:db8::ffff:2")).unwrap_err(), Full::Client);
        assert!(gate.admit(ip("2001:db8:0:1::1")).is_ok());
    }
}
