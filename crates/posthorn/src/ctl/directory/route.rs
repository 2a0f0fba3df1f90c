//! `ctl route`

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::Result;
use posthorn_api::directory::v1 as api;
use serde::Serialize;

use super::{Deleted, PAGE};
use crate::ctl::connect::{Services, each_page};
use crate::ctl::output::{Output, Table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Route {
    /// Send mail for a domain to these servers, the first that answers
    Create {
        /// A domain, ".example.com" for all below it, or "*" for every domain that is not ours
        domain: String,
        #[arg(required = true, value_name = "HOST[:PORT]")]
        hosts: Vec<RouteHost>,
    },
    /// All routes
    List,
    /// Delete a route: the DNS decides again
    Delete { domain: String },
}

/// `mx.example.net`, `mx.example.net:2525`, `192.0.2.1:25`, `2001:db8::1`, `[2001:db8::1]:25`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteHost {
    host: String,
    /// 0: the relay's default.
    port: u16,
}

impl FromStr for RouteHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = "a server is HOST, HOST:PORT or [IPV6]:PORT";
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(refused)?;
                match port {
                    "" => (host, None),
                    port => (host, Some(port.strip_prefix(':').ok_or(refused)?)),
                }
            }
            // An IPv6 address holds colons that part no port.
            None if text.parse::<IpAddr>().is_ok() => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(0), |port| port.parse::<u16>().map_err(|_| refused))?;
        if host.is_empty() { Err(refused) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

impl fmt::Display for RouteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.host.contains(':')) {
            (0, _) => f.write_str(&self.host),
            (port, true) => write!(f, "[{}]:{port}", self.host),
            (port, false) => write!(f, "{}:{port}", self.host),
        }
    }
}

/// A route as it is printed.
#[derive(Serialize)]
struct Row {
    domain: String,
    hosts: Vec<String>,
}

impl From<api::Route> for Row {
    fn from(route: api::Route) -> Self {
        let shown = |host: api::RouteHost| {
            RouteHost { host: host.host, port: u16::try_from(host.port).unwrap_or_default() }.to_string()
        };
        Self { domain: route.domain, hosts: route.hosts.into_iter().map(shown).collect() }
    }
}

impl Route {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let mut directory = services.directory().await?;
        match self {
            Self::Create { domain, hosts } => {
                let wire = |host: RouteHost| api::RouteHost { host: host.host, port: host.port.into() };
                let hosts = hosts.into_iter().map(wire).collect();
                let request = api::CreateRouteRequest { route: Some(api::Route { domain, hosts }) };
                let made = directory.create_route(request).await?.into_inner();
                out.record(&Row::from(made.route.unwrap_or_default()))?;
            }
            Self::List => {
                let mut table = Table::new(&["domain", "hosts"]);
                each_page(async |page_token| {
                    let request = api::ListRoutesRequest { page_size: PAGE, page_token };
                    let page = directory.list_routes(request).await?.into_inner();
                    table.rows(out, page.routes.into_iter().map(Row::from))?;
                    Ok(page.next_page_token)
                })
                .await?;
            }
            Self::Delete { domain } => {
                directory.delete_route(api::DeleteRouteRequest { domain: domain.clone() }).await?;
                Deleted::say(domain, out)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_people_write_them() {
        for (text, host, port) in [
            ("mx.example.net", "mx.example.net", 0),
            ("mx.example.net:2525", "mx.example.net", 2525),
            ("192.0.2.1:25", "192.0.2.1", 25),
            ("2001:db8::1", "2001:db8::1", 0),
            ("[2001:db8::1]:25", "2001:db8::1", 25),
        ] {
            let read: RouteHost = text.parse().unwrap();
            assert_eq!((read.host.as_str(), read.port), (host, port), "{text}");
            assert_eq!(read.to_string(), text);
        }
        for text in ["", ":25", "a:b", "a:70000", "[::1", "[::1]25"] {
            assert!(text.parse::<RouteHost>().is_err(), "{text}");
        }
    }
}
