//! The DNS: asks, and tells "none", "no such name" and "could not find out" apart. The only place that knows the
//! resolver.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, ResolverBuilder, TokioResolver};
use posthorn_mail::{Domain, Host, Status};
use tokio::sync::Semaphore;

use crate::config;
use crate::known::{Own, RouteHost, StaticRoute};
use crate::mx::{Addresses, Answer, Exchange, Exchangers, Ipv6, Mx, Server, order, route_destination};
use crate::refusal;

/// The servers of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) name: Arc<str>,
    /// In the order in which to try them; never empty.
    pub(crate) servers: Vec<Server>,
}

/// Asks the DNS; answers are kept for as long as their TTL says.
#[derive(Debug)]
pub(crate) struct Dns {
    resolver: TokioResolver,
    /// For one question with all its attempts.
    deadline: Duration,
    /// How many questions may be open at once.
    open: Semaphore,
    ipv6: Ipv6,
    max_hosts: usize,
    own: Own,
}

/// The resolver cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the DNS resolver cannot be set up: {0}")]
pub(crate) struct DnsSetupError(String);

impl Dns {
    /// A resolver as configured.
    pub(crate) fn new(config: &config::Dns, own: Own) -> Result<Self, DnsSetupError> {
        let mut builder = if config.servers.is_empty() {
            TokioResolver::builder_tokio().unwrap_or_else(|reason| {
                // As resolv.conf(5) has it where no name server is named.
                let local = SocketAddr::from(([127, 0, 0, 1], 53));
                tracing::warn!(%reason, "no name servers in /etc/resolv.conf: asking {local}");
                resolver(&[local])
            })
        } else {
            resolver(&config.servers)
        };
        let options = builder.options_mut();
        options.timeout = config.timeout;
        // The resolver counts the attempts after the first.
        options.attempts = config.attempts.saturating_sub(1) as usize;
        options.cache_size = config.cache_entries;
        options.positive_max_ttl = Some(config.cache_longest);
        options.negative_max_ttl = Some(config.cache_longest_negative);
        options.max_active_requests = config.concurrency;
        options.use_hosts_file = ResolveHosts::Never;
        options.server_ordering_strategy = ServerOrderingStrategy::QueryStatistics;
        Ok(Self {
            resolver: builder.build().map_err(|error| DnsSetupError(error.to_string()))?,
            deadline: config.timeout.saturating_mul(config.attempts.max(1)),
            open: Semaphore::new(config.concurrency),
            ipv6: config.ipv6,
            max_hosts: config.max_hosts,
            own,
        })
    }

    /// The servers for a domain by its MX records, in the order in which to try them.
    pub(crate) async fn destination(&self, domain: &Domain) -> Result<Destination, Status> {
        let records = self.mx(domain).await;
        let mut exchangers = Exchangers::of(domain, &records, &self.own)?;
        let name = exchangers.destination();
        exchangers.shuffle(self.max_hosts, &mut rand::rng());
        let found = self.all_addresses(exchangers.names()).await;
        Ok(Destination { name, servers: exchangers.servers(&found, &self.own, self.ipv6)? })
    }

    /// The servers of a static route, in the order in which the operator wants them tried.
    pub(crate) async fn route(&self, route: &StaticRoute) -> Result<Destination, Status> {
        let lookups = route.hosts.iter().map(|host| self.route_host(host));
        let mut servers = futures::future::join_all(lookups).await;
        servers.retain(|server| !server.addresses.is_empty());
        let name = route_destination(route);
        if servers.is_empty() {
            Err(refusal::no_route_host(&name))
        } else {
            Ok(Destination { name, servers })
        }
    }

    async fn route_host(&self, host: &RouteHost) -> Server {
        let addresses = match (host.host.parse::<IpAddr>(), host.host.parse::<Domain>()) {
            (Ok(ip), _) => vec![ip],
            (Err(_), Ok(name)) => order(&self.addresses(&name).await, self.ipv6),
            (Err(_), Err(_)) => Vec::new(),
        };
        Server { name: host.host.clone(), addresses, port: host.port, by_route: true }
    }

    /// The server that an address literal names.
    pub(crate) fn literal(&self, ip: IpAddr) -> Result<Destination, Status> {
        let name = Host::Literal(ip).to_string();
        if self.own.addresses.contains(&ip) {
            return Err(refusal::own_literal(&Host::Literal(ip)));
        }
        let servers = vec![Server { name: name.clone(), addresses: vec![ip], port: 0, by_route: false }];
        Ok(Destination { name: name.into(), servers })
    }

    async fn mx(&self, domain: &Domain) -> Answer<Mx> {
        self.ask(domain, RecordType::MX, |data| match data {
            RData::MX(mx) => Some(Mx { preference: mx.preference, exchange: exchange(&mx.exchange) }),
            _ => None,
        })
        .await
    }

    async fn all_addresses(&self, names: impl Iterator<Item = &Domain>) -> HashMap<Domain, Addresses> {
        let lookups = names.map(|name| async move { (name.clone(), self.addresses(name).await) });
        futures::future::join_all(lookups).await.into_iter().collect()
    }

    async fn addresses(&self, name: &Domain) -> Addresses {
        let v4 = self.ask(name, RecordType::A, |data| match data {
            RData::A(a) => Some(a.0),
            _ => None,
        });
        let v6 = async {
            if self.ipv6 == Ipv6::Never {
                return Answer::NoData;
            }
            let pick = |data: &RData| match data {
                RData::AAAA(aaaa) => Some(aaaa.0),
                _ => None,
            };
            self.ask(name, RecordType::AAAA, pick).await
        };
        let (v4, v6) = tokio::join!(v4, v6);
        Addresses { v4, v6 }
    }

    /// Asks one question; CNAMEs are followed by the resolver.
    async fn ask<T>(
        &self,
        name: &Domain,
        record_type: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Answer<T> {
        // With its final dot, so that no search list is gone through.
        let Ok(fqdn) = Name::from_ascii(format!("{name}.")) else {
            return Answer::NoName;
        };
        // Waiting for a place is no fault of this name's servers; others' deadlines bound it.
        let _open = self.open.acquire().await;
        let asked = self.resolver.lookup(fqdn, record_type);
        let answer = match tokio::time::timeout(self.deadline, asked).await {
            Err(_) => Answer::Trouble("the name server does not answer in time".into()),
            Ok(Err(error)) => failure(&error),
            Ok(Ok(lookup)) => {
                let records: Vec<T> =
                    lookup.answers().iter().filter_map(|record| pick(&record.data)).collect();
                if records.is_empty() { Answer::NoData } else { Answer::Found(records) }
            }
        };
        let result = match &answer {
            Answer::Found(_) => "found",
            Answer::NoData => "no_data",
            Answer::NoName => "no_name",
            Answer::Trouble(trouble) => {
                tracing::debug!(%name, %record_type, trouble, "the DNS could not be asked");
                "trouble"
            }
        };
        metrics::counter!("posthorn_router_dns_answers_total", "result" => result).increment(1);
        answer
    }
}

fn exchange(name: &Name) -> Exchange {
    if name.is_root() {
        return Exchange::Null;
    }
    name.to_ascii().parse().map_or(Exchange::Unusable, Exchange::Host)
}

fn failure<T>(error: &NetError) -> Answer<T> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Answer::NoName,
            ResponseCode::NoError => Answer::NoData,
            code => Answer::Trouble(format!("the name server says: {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Answer::Trouble(format!("the name server says: {code}"))
        }
        NetError::Timeout => Answer::Trouble("the name server does not answer in time".into()),
        other => Answer::Trouble(other.to_string()),
    }
}

fn resolver(servers: &[SocketAddr]) -> ResolverBuilder<TokioRuntimeProvider> {
    let servers = servers.iter().map(|server| name_server(*server)).collect();
    Resolver::builder_with_config(ResolverConfig::from_name_servers(servers), TokioRuntimeProvider::default())
}

fn name_server(at: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = at.port();
        connection
    });
    NameServerConfig::new(at.ip(), true, connections.into())
}
