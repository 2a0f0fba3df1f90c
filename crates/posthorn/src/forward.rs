//! `posthorn forward`: one port of a machine for all replicas behind a name.
//!
//! For Compose, which can give a port of the host to one container only. It passes bytes on and knows nothing of them:
//! the replicas see its address in place of the client's, so it is for clients on the same machine, whose addresses
//! Docker hides anyway.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{serve, settings};

/// Connections at once, over all ports.
const CONNECTIONS: usize = 4096;
/// How long a replica may take to take a connection before the next is tried.
const CONNECT: Duration = Duration::from_secs(2);
/// After a failure to accept (no more descriptors), before the next try.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A port to listen on, and the name and port to pass its connections on to
    #[arg(required = true, value_name = "PORT=NAME:PORT")]
    routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    port: u16,
    to: String,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (port, to) =
            text.split_once('=').ok_or("a route is PORT=NAME:PORT, such as 2525=ingress:2525")?;
        let port = port.parse().map_err(|_| format!("{port} is no port"))?;
        match to.rsplit_once(':') {
            Some((name, number)) if !name.is_empty() && number.parse::<u16>().is_ok() => {
                Ok(Self { port, to: to.to_owned() })
            }
            _ => Err(format!("{to} is not NAME:PORT")),
        }
    }
}

/// Forwards until SIGTERM or SIGINT; connections end with it.
pub(crate) async fn run(args: Args) -> Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(serve::cancel_on_signal(shutdown.clone())?);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut routes = JoinSet::new();
    for route in args.routes {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, route.port));
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        routes.spawn(accept(listener, route.to, room.clone()));
    }
    shutdown.cancelled().await;
    Ok(())
}

async fn accept(listener: TcpListener, to: String, room: Arc<Semaphore>) {
    let to: Arc<str> = to.into();
    let turn = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (to, turn) = (to.clone(), turn.fetch_add(1, Ordering::Relaxed));
        tokio::spawn(async move {
            if let Err(error) = pass_on(client, &to, turn).await {
                settings::say_error(&format!("no replica of {to} takes a connection: {error}"));
            }
            drop(place);
        });
    }
}

/// Connects to one of the addresses that the name has now, each connection beginning with another.
async fn pass_on(mut client: TcpStream, to: &str, turn: usize) -> Result<()> {
    let mut addresses: Vec<SocketAddr> = timeout(CONNECT, lookup_host(to)).await??.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut last = anyhow::anyhow!("the name has no address");
    for address in in_turn(&addresses, turn) {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(mut replica)) => {
                let _ = client.set_nodelay(true);
                let _ = replica.set_nodelay(true);
                // That one side broke the connection off is for the other to deal with.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut replica).await;
                return Ok(());
            }
            Ok(Err(error)) => last = error.into(),
            Err(late) => last = late.into(),
        }
    }
    Err(last)
}

/// All of them, beginning with the one whose turn it is.
fn in_turn(addresses: &[SocketAddr], turn: usize) -> impl Iterator<Item = SocketAddr> {
    let first = turn.checked_rem(addresses.len()).unwrap_or_default();
    addresses.iter().cycle().skip(first).take(addresses.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read() {
        assert_eq!("2525=ingress:25".parse(), Ok(Route { port: 2525, to: "ingress:25".into() }));
        for wrong in ["2525", "x=ingress:25", "1=ingress", "1=:25", "1=ingress:x"] {
            assert!(wrong.parse::<Route>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_replica_has_its_turn_and_all_are_tried() {
        let replicas: Vec<SocketAddr> = (1..=3).map(|n| SocketAddr::from(([10, 0, 0, n], 25))).collect();
        let last_octets =
            |turn| in_turn(&replicas, turn).map(|a| a.to_string().as_bytes()[7] - b'0').collect::<Vec<_>>();
        assert_eq!(last_octets(0), [1, 2, 3]);
        assert_eq!(last_octets(1), [2, 3, 1]);
        assert_eq!(last_octets(5), [3, 1, 2]);
        assert_eq!(in_turn(&[], 7).count(), 0);
    }
}
