//! An SMTP server that takes mail as a test says: refuses, hangs, drops, greylists, lacks extensions.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use posthorn_testkit::smtp_server::{At, Rule, Script, SmtpServer};
//!
//! let script = Script::named("mx1.test")
//!     .without("8BITMIME")
//!     .rule(Rule::at(At::Rcpt).first(2).replies("451 4.7.1 greylisted"))
//!     .rule(Rule::at(At::Rcpt).containing("<nobody@").replies("550 5.1.1 no such user"))
//!     .rule(Rule::at(At::EndOfData).drops());
//! let server = SmtpServer::start("127.0.0.5:0".parse()?, script).await?;
//! // ... something sends to server.address() ...
//! let messages = server.received(1).await;
//! # Ok(())
//! # }
//! ```

mod script;
mod session;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

pub use script::{Action, At, Rule, Script};

use crate::wait;

/// How long [`SmtpServer::received`] waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; it stops, and its connections are cut, when dropped.
#[derive(Debug)]
pub struct SmtpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

/// A message that was sent to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Which connection it came on, from 1 up.
    pub connection: usize,
    /// It came under TLS.
    pub tls: bool,
    /// What the client called itself.
    pub helo: String,
    /// The argument of MAIL: `<a@example.net> SIZE=7`.
    pub mail: String,
    /// The arguments of the RCPTs that were accepted.
    pub rcpt: Vec<String>,
    /// The content, dots no longer doubled.
    pub content: Vec<u8>,
    /// What was answered to its end; `None`: nothing.
    pub answer: Option<String>,
    /// When its end came.
    pub at: Instant,
}

impl Received {
    /// Whether the sender was told that it has been taken over.
    pub fn was_accepted(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.starts_with('2'))
    }
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    received: Mutex<Vec<Received>>,
    lines: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

impl SmtpServer {
    /// Listens at `address` (`127.0.0.5:25`; port 0 is any that is free).
    pub async fn start(address: SocketAddr, script: Script) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("binding {address}"))?;
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            received: Mutex::default(),
            lines: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes on by another script: commands to come, on open connections too, are answered by it.
    pub fn follow(&self, script: Script) {
        *lock(&self.shared.script) = script;
    }

    /// The messages that have come to their end so far.
    pub fn messages(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Waits until at least `count` messages have come to their end; panics when they do not within 30 s.
    pub async fn received(&self, count: usize) -> Vec<Received> {
        let what = format!("{count} messages at {}", self.address);
        let probe = async || Some(self.messages()).filter(|messages| messages.len() >= count);
        wait::until(&what, PATIENCE, probe).await
    }

    /// All lines that clients have said, but for contents.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.shared.lines).clone()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and the connections with it.
    let mut sessions = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        shared.open.fetch_add(1, Ordering::Relaxed);
        let open = Open(shared.clone());
        sessions.spawn(async move {
            // How a client's connection ends is the client's affair.
            let _ = session::serve(stream, number, &open.0).await;
        });
        while sessions.try_join_next().is_some() {}
    }
}

/// Counts a connection as open.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
