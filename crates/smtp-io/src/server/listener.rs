//! Taking connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use posthorn_mail::EnhancedStatus;
use posthorn_smtp::reply;
use posthorn_smtp::server::Settings;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::gate::{Full, Gate};

/// Connections that the system holds until they are taken.
const BACKLOG: u32 = 1024;

/// A port that is listened on.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    settings: Arc<Settings>,
    gate: Arc<Gate>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Listener {
    /// Listens on `address`. STARTTLS is offered when `tls` is there.
    pub fn bind(
        address: SocketAddr,
        settings: Settings,
        gate: Arc<Gate>,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let settings = Arc::new(Settings { starttls: tls.is_some(), ..settings });
        Ok(Self { socket: socket.listen(BACKLOG)?, settings, gate, tls })
    }

    /// The address that is listened on, its port chosen by the system where 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Gives each connection a task of `session`, until told to stop; then lets the sessions end, for `drain` at most
    /// (they say 421 as soon as no message is under way), and cuts off what is left.
    pub async fn serve<F>(
        self,
        shutdown: CancellationToken,
        drain: Duration,
        session: impl Fn(Connection) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut sessions = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = shutdown.cancelled() => break,
                Some(ended) = sessions.join_next() => {
                    log_panic(ended);
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(connection) = self.admit(stream, peer, &shutdown) {
                        sessions.spawn(session(connection));
                    }
                }
                Err(reason) => {
                    // Most likely out of file descriptors: some will come free.
                    tracing::error!(%reason, "cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.socket);
        let ended = async {
            while let Some(ended) = sessions.join_next().await {
                log_panic(ended);
            }
        };
        if tokio::time::timeout(drain, ended).await.is_err() {
            tracing::warn!(
                sessions = sessions.len(),
                "sessions were still open at the end of the drain time"
            );
            sessions.shutdown().await;
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, shutdown: &CancellationToken) -> Option<Connection> {
        // Replies are small, and each is waited for.
        if let Err(reason) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %reason, "a connection was gone at once");
            return None;
        }
        let pass = match self.gate.admit(peer.ip()) {
            Ok(pass) => pass,
            Err(full) => {
                // Counted and not logged: a flood of connections must not become a flood of lines.
                let limit = match full {
                    Full::All => "all",
                    Full::Client => "client",
                };
                metrics::counter!("posthorn_ingress_connections_refused_total", "limit" => limit)
                    .increment(1);
                refuse(&stream, &self.settings.hostname, full);
                return None;
            }
        };
        let settings = Arc::clone(&self.settings);
        let connection = Connection::new(stream, peer, settings, self.tls.clone(), shutdown.clone(), pass);
        connection.inspect_err(|reason| tracing::debug!(%peer, %reason, "a connection was gone at once")).ok()
    }
}

/// Says 421 without waiting: the send buffer of a new socket has room.
fn refuse(stream: &TcpStream, hostname: &str, full: Full) {
    let text = match full {
        Full::All => format!("{hostname} Too many connections, try again later"),
        Full::Client => format!("{hostname} Too many connections from your address, try again later"),
    };
    let mut reply = BytesMut::new();
    reply::write(&mut reply, 421, Some(EnhancedStatus::new(4, 7, 0)), &text);
    // A client that is gone already need not be told.
    let _ = stream.try_write(&reply);
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a session ended in a panic");
    }
}
