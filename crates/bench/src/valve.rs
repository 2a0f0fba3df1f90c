//! A way for TCP connections that can be shut.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes connections on as long as it is there.
///
/// It stands between the queue and router and local-delivery where acceptance is measured with delivery held: once it is
/// shut, the router goes on answering for recipients, neither gets work, and nothing that was accepted moves.
#[derive(Debug)]
pub(crate) struct Valve {
    address: SocketAddr,
    passing: JoinHandle<()>,
}

impl Valve {
    /// Passes connections on to `target` from a port of its own.
    pub(crate) async fn open(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let passing = tokio::spawn(async move {
            let mut ways = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                ways.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(Self { address, passing })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts what passes, and lets nothing pass any more.
    pub(crate) fn shut(&self) {
        self.passing.abort();
    }
}
