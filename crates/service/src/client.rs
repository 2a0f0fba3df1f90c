//! A channel to another service.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::channel::Change;
use tonic::transport::{Endpoint, Uri};

use crate::{Error, trace};

/// A channel that carries the trace context of the current span along. Cheap to clone.
pub type Channel = InterceptedService<tonic::transport::Channel, trace::Inject>;

/// How often the DNS is asked which replicas there are.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);

/// A channel to the service at `url` (`http://host:port`), which need not be up yet: each call connects as needed, and
/// a call to a service that is away is UNAVAILABLE within seconds.
///
/// Where the host is a name, calls are balanced over all addresses that it has, asked anew every few seconds, so that
/// replicas may come and go. Must be called within a tokio runtime.
pub fn connect(url: &str) -> Result<Channel, Error> {
    let refused = |reason: &str| Error::Address { url: url.to_owned(), reason: reason.to_owned() };
    let uri: Uri = url.parse().map_err(|_| refused("not a URL"))?;
    let host = uri.host().ok_or_else(|| refused("it names no host"))?.to_owned();
    let port = uri.port_u16().ok_or_else(|| refused("it names no port"))?;
    if uri.scheme_str() != Some("http") {
        return Err(refused("it must begin with http://"));
    }
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let channel = if is_address { endpoint(uri).connect_lazy() } else { balanced(host, port) };
    Ok(InterceptedService::new(channel, trace::Inject))
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

fn balanced(host: String, port: u16) -> tonic::transport::Channel {
    let (channel, changes) = tonic::transport::Channel::balance_channel(16);
    tokio::spawn(follow_dns(host, port, changes));
    channel
}

/// Keeps the channel's endpoints those that the name has, until the channel is dropped.
async fn follow_dns(host: String, port: u16, changes: mpsc::Sender<Change<SocketAddr, Endpoint>>) {
    let mut known: HashSet<SocketAddr> = HashSet::new();
    loop {
        match tokio::net::lookup_host((host.as_str(), port)).await {
            // A name server that is away is no reason to forget who was there.
            Err(reason) => tracing::warn!(host, %reason, "cannot look up a service's addresses"),
            Ok(found) => {
                let found: HashSet<SocketAddr> = found.collect();
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
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RESOLVE_EVERY) => {}
            () = changes.closed() => return,
        }
    }
}
