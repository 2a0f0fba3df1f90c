//! Channels to another service: one over all of its replicas, or one to each.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::channel::Change;
use tonic::transport::{Endpoint, Uri};

use crate::{Error, trace};

/// A channel that carries the trace context of the current span along. Cheap to clone.
pub type Channel = InterceptedService<tonic::transport::Channel, trace::Inject>;

/// How often the DNS is asked which replicas there are.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);

/// The addresses of a service's replicas, kept current.
pub type Replicas = watch::Receiver<HashSet<SocketAddr>>;

/// A channel to the service at `url` (`http://host:port`), which need not be up yet: each call connects as needed, and
/// a call to a service that is away is UNAVAILABLE within seconds.
///
/// Where the host is a name, calls are balanced over all addresses that it has, asked anew every few seconds, so that
/// replicas may come and go. Must be called within a tokio runtime.
pub fn connect(url: &str) -> Result<Channel, Error> {
    let place = Place::parse(url)?;
    match place.literal() {
        Some(_) => Ok(InterceptedService::new(endpoint(place.uri).connect_lazy(), trace::Inject)),
        None => Ok(connect_among(replicas(url)?)),
    }
}

/// What a call comes to; DEADLINE_EXCEEDED where that takes longer: the other service may hang, and the name of one that
/// was never there has no replica that would refuse.
pub async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, tonic::Status> {
    let late = |_| Err(tonic::Status::deadline_exceeded("no answer in time"));
    tokio::time::timeout(limit, call).await.unwrap_or_else(late)
}

/// A channel over these replicas, as they come and go: [`connect`] for those who must know which they are. Must be called
/// within a tokio runtime.
pub fn connect_among(replicas: Replicas) -> Channel {
    let (channel, changes) = tonic::transport::Channel::balance_channel(16);
    tokio::spawn(balance(replicas, changes));
    InterceptedService::new(channel, trace::Inject)
}

/// The replicas of the service at `url`, for those who deal with each by itself ([`connect_to`]): the addresses that its
/// name has, asked anew every few seconds, or the one address that it is. Must be called within a tokio runtime.
pub fn replicas(url: &str) -> Result<Replicas, Error> {
    let place = Place::parse(url)?;
    let (found, replicas) = watch::channel(place.literal().into_iter().collect());
    if place.literal().is_none() {
        tokio::spawn(follow_dns(place, found));
    }
    Ok(replicas)
}

/// A channel to one replica, which need not be up yet. Must be called within a tokio runtime.
pub fn connect_to(replica: SocketAddr) -> Result<Channel, Error> {
    let place = Place::parse(&format!("http://{replica}"))?;
    Ok(InterceptedService::new(endpoint(place.uri).connect_lazy(), trace::Inject))
}

/// Why this is no URL of a service.
pub(crate) fn check(url: &str) -> Result<(), Error> {
    Place::parse(url).map(drop)
}

/// Where a service is.
struct Place {
    uri: Uri,
    host: String,
    port: u16,
}

impl Place {
    fn parse(url: &str) -> Result<Self, Error> {
        let refused = |reason: &str| Error::Address { url: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|_| refused("not a URL"))?;
        let host = uri.host().ok_or_else(|| refused("it names no host"))?.to_owned();
        let port = uri.port_u16().filter(|port| *port != 0).ok_or_else(|| refused("it names no port"))?;
        if uri.scheme_str() != Some("http") {
            return Err(refused("it must begin with http://"));
        }
        Ok(Self { uri, host, port })
    }

    /// The address, where the host is none that the DNS would have to know.
    fn literal(&self) -> Option<SocketAddr> {
        let host: IpAddr = self.host.trim_matches(['[', ']']).parse().ok()?;
        Some(SocketAddr::new(host, self.port))
    }
}

fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(3))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}

/// Keeps the channel's endpoints those that were found, until the channel is dropped.
async fn balance(mut replicas: Replicas, changes: mpsc::Sender<Change<SocketAddr, Endpoint>>) {
    let mut known: HashSet<SocketAddr> = HashSet::new();
    loop {
        let found = replicas.borrow_and_update().clone();
        let gone = known.difference(&found).map(|address| Change::Remove(*address));
        let new = found.difference(&known).filter_map(|address| {
            let uri = format!("http://{address}").parse().ok()?;
            Some(Change::Insert(*address, endpoint(uri)))
        });
        for change in new.chain(gone).collect::<Vec<_>>() {
            if changes.send(change).await.is_err() {
                return;
            }
        }
        known = found;
        tokio::select! {
            changed = replicas.changed() => if changed.is_err() { return },
            () = changes.closed() => return,
        }
    }
}

/// Keeps what was found the addresses that the name has, until nobody wants to know.
async fn follow_dns(place: Place, found: watch::Sender<HashSet<SocketAddr>>) {
    let Place { host, port, .. } = place;
    loop {
        match tokio::net::lookup_host((host.as_str(), port)).await {
            // A name server that is away is no reason to forget who was there.
            Err(reason) => tracing::warn!(host, %reason, "cannot look up a service's addresses"),
            Ok(addresses) => {
                let addresses: HashSet<SocketAddr> = addresses.collect();
                found.send_if_modified(|known| {
                    let changed = *known != addresses;
                    *known = addresses;
                    changed
                });
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RESOLVE_EVERY) => {}
            () = found.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_literal_address_is_its_only_replica() {
        for (url, address) in
            [("http://127.0.0.1:7002", "127.0.0.1:7002"), ("http://[::1]:7002", "[::1]:7002")]
        {
            let replicas = replicas(url).unwrap();
            assert_eq!(*replicas.borrow(), HashSet::from([address.parse().unwrap()]));
            assert!(connect(url).is_ok());
        }
    }

    #[tokio::test]
    async fn a_name_has_the_replicas_that_are_looked_up() {
        let mut replicas = replicas("http://localhost:7002").unwrap();
        let found = replicas.wait_for(|found| !found.is_empty()).await.unwrap().clone();
        assert!(
            found.iter().all(|address| address.ip().is_loopback() && address.port() == 7002),
            "{found:?}"
        );
        for address in found {
            assert!(connect_to(address).is_ok());
        }
    }

    #[tokio::test]
    async fn what_is_no_address_of_a_service_is_refused() {
        for url in ["queue:7002", "https://queue:7002", "http://queue", "http://queue:0", "/queue", ""] {
            assert!(replicas(url).is_err() && connect(url).is_err(), "{url}");
        }
    }
}
