//! A TCP proxy that can be told to break: it stands between two parties that should not notice it until then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// It goes through.
    #[default]
    Passes,
    /// Nothing goes through and nobody is told; what was held back goes on when this ends.
    Held,
    /// So many bytes a second and direction and connection.
    Slow(u32),
    /// The connections that there are, and new ones, lead nowhere: what is sent is taken and lost, and nobody is told.
    /// They stay so when this ends; new ones do not.
    HalfOpen,
    /// What the client sends goes through, and what the server answers is lost: what was asked for is done, and nobody
    /// hears of it. Connections that have lost something stay so when this ends.
    AnswersLost,
    /// Nobody can connect; see also [`Proxy::cut`].
    Refused,
}

/// A running proxy; its connections are cut when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
    cuts: watch::Sender<usize>,
    accepting: AbortHandle,
}

/// How long an upstream may take to be connected to.
const CONNECT: Duration = Duration::from_secs(2);

impl Proxy {
    /// Listens at `address`, and passes each connection on to the next of `upstreams` that takes it.
    pub async fn start(address: SocketAddr, upstreams: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("binding {address}"))?;
        let address = listener.local_addr()?;
        let (flow, cuts) = (watch::Sender::default(), watch::Sender::default());
        let upstreams = Upstreams { all: upstreams, next: AtomicUsize::new(0) };
        let accepting = tokio::spawn(accept(listener, Arc::new(upstreams), flow.clone(), cuts.clone()));
        Ok(Self { address, flow, cuts, accepting: accepting.abort_handle() })
    }

    /// Stands before the Postgres of a URL; also the URL that leads through it.
    pub async fn before_postgres(url: &str) -> Result<(Self, String)> {
        let (user, rest) = url.split_once('@').context("the URL names a user")?;
        let (postgres, name) = rest.split_once('/').context("the URL names a database")?;
        let postgres = postgres.parse().context("Postgres is at an address")?;
        let proxy = Self::start(([127, 0, 0, 1], 0).into(), vec![postgres]).await?;
        let through = format!("{user}@{}/{name}", proxy.address());
        Ok((proxy, through))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets what is sent flow so from now on.
    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }

    /// Closes all connections that there are, towards both sides.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

struct Upstreams {
    all: Vec<SocketAddr>,
    next: AtomicUsize,
}

impl Upstreams {
    async fn connect(&self) -> Option<TcpStream> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for turn in 0..self.all.len() {
            let address = self.all[(first + turn) % self.all.len()];
            if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(address)).await {
                return Some(stream);
            }
        }
        None
    }
}

async fn accept(
    listener: TcpListener,
    upstreams: Arc<Upstreams>,
    flow: watch::Sender<Flow>,
    cuts: watch::Sender<usize>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        if *flow.borrow() == Flow::Refused {
            continue;
        }
        let (upstreams, flow, mut cuts) = (upstreams.clone(), flow.subscribe(), cuts.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(stream, &upstreams, flow) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// Follows a connection to its end.
async fn serve(client: TcpStream, upstreams: &Upstreams, mut flow: watch::Receiver<Flow>) {
    let _ = client.set_nodelay(true);
    // Kept to the end: what leads nowhere is not closed either.
    let (mut from_client, mut to_client) = client.into_split();
    if *flow.borrow() != Flow::HalfOpen {
        let Some(server) = upstreams.connect().await else { return };
        let _ = server.set_nodelay(true);
        let (mut from_server, mut to_server) = server.into_split();
        let there = pump(&mut from_client, &mut to_server, flow.clone(), Direction::There);
        let back = pump(&mut from_server, &mut to_client, flow.clone(), Direction::Back);
        tokio::select! {
            _ = async { tokio::join!(there, back) } => return,
            _ = flow.wait_for(|flow| *flow == Flow::HalfOpen) => {}
        }
    }
    lose(&mut from_client).await;
}

/// Takes all that comes, and never answers.
async fn lose(from: &mut OwnedReadHalf) {
    let mut buffer = vec![0; 16 << 10];
    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

/// One direction, and then its end.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    direction: Direction,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let slow = match *flow.borrow_and_update() {
            Flow::Slow(rate) => Some(rate.max(1)),
            _ => None,
        };
        let most = slow.map_or(buffer.len(), |rate| (rate as usize / 10).clamp(1, buffer.len()));
        let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else { break };
        if flow.wait_for(|flow| *flow != Flow::Held).await.is_err() {
            return;
        }
        if direction == Direction::Back && *flow.borrow() == Flow::AnswersLost {
            return lose(from).await;
        }
        if let Some(rate) = slow {
            tokio::time::sleep(Duration::from_secs(1) * read as u32 / rate).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says everything back, and a client of it behind a proxy.
    async fn parties() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        // The first upstream is down: port 1 is nobody's.
        let down = "127.0.0.1:1".parse().unwrap();
        let proxy = Proxy::start("127.0.0.1:0".parse().unwrap(), vec![down, server]).await.unwrap();
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, client)
    }

    async fn echoes(client: &mut TcpStream) {
        client.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        timeout(Duration::from_secs(30), client.read_exact(&mut answer)).await.expect("an answer").unwrap();
    }

    async fn is_silent(client: &mut TcpStream) {
        client.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        let read = timeout(Duration::from_millis(300), client.read_exact(&mut heard)).await;
        assert!(!matches!(read, Ok(Ok(_))), "{read:?}");
    }

    #[tokio::test]
    async fn it_passes_holds_and_passes_on_what_it_held() {
        let (proxy, mut client) = parties().await;
        echoes(&mut client).await;
        proxy.set(Flow::Held);
        is_silent(&mut client).await;
        proxy.set(Flow::Passes);
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
    }

    #[tokio::test]
    async fn it_loses_answers_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let proxy = Proxy::start("127.0.0.1:0".parse().unwrap(), vec![server]).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        proxy.set(Flow::AnswersLost);
        client.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        server.write_all(b"lost").await.unwrap();
        let read = timeout(Duration::from_millis(300), client.read(&mut heard)).await;
        assert!(read.is_err(), "{read:?}");
        proxy.set(Flow::Passes);
        server.write_all(b"lost, too").await.unwrap();
        let read = timeout(Duration::from_millis(300), client.read(&mut heard)).await;
        assert!(read.is_err(), "{read:?}");
    }

    #[tokio::test]
    async fn it_cuts_and_loses() {
        let (proxy, mut client) = parties().await;
        echoes(&mut client).await;
        proxy.set(Flow::HalfOpen);
        is_silent(&mut client).await;
        proxy.set(Flow::Passes);
        is_silent(&mut client).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        echoes(&mut client).await;
        proxy.cut();
        assert_eq!(client.read(&mut [0; 5]).await.unwrap_or(0), 0);
    }
}
