//! One client's connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthorn_mail::{Envelope, Recipient, ReversePath, Status};
use posthorn_smtp::server::{Client, Session, Settings, Step};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::gate::Pass;
use super::stream::Stream;

/// How long the client may take to hear the last reply.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the session needs from whoever runs it.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// May mail from this sender to these recipients be taken? Answer by [`Connection::verified`].
    Verify {
        /// As MAIL gave it.
        sender: ReversePath,
        /// Those of a group of RCPT commands.
        recipients: Vec<Recipient>,
    },
    /// A message begins.
    Begin(Envelope),
    /// A piece of it: CRLF line ends, no stuffed dots.
    Chunk(Bytes),
    /// It is all there: keep it, and answer by [`Connection::finished`].
    End {
        /// There was an octet above 127, whatever BODY= said.
        eight_bit: bool,
    },
    /// It is not to be.
    Abort,
}

/// A client's connection with its session.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    session: Session,
    peer: SocketAddr,
    local: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    write_timeout: Duration,
    shutdown: CancellationToken,
    _pass: Pass,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        settings: Arc<Settings>,
        tls: Option<Arc<rustls::ServerConfig>>,
        shutdown: CancellationToken,
        pass: Pass,
    ) -> io::Result<Self> {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Ok(Self {
            local: canonical(stream.local_addr()?),
            peer: canonical(peer),
            stream: Stream::Plain(stream),
            tls,
            write_timeout: settings.data_timeout,
            session: Session::new(settings, Instant::now()),
            shutdown,
            _pass: pass,
        })
    }

    /// Goes on with the session to the next thing that it needs; `None` when it is over. A message that was begun
    /// always comes to its [`Event::End`] or [`Event::Abort`].
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.session.step(Instant::now()) {
                Step::Read { until } => {
                    if let Err(reason) = self.read(until).await {
                        tracing::debug!(client = %self.peer, %reason, "the connection broke");
                        self.session.hang_up();
                    }
                }
                Step::StartTls => {
                    if let Err(reason) = self.start_tls().await {
                        tracing::debug!(client = %self.peer, %reason, "no TLS came about");
                        self.session.hang_up();
                    }
                }
                Step::Close => {
                    if self.flush().await.is_ok() {
                        self.stream.close(GOODBYE).await;
                    }
                    return None;
                }
                Step::Verify { sender, recipients } => return Some(Event::Verify { sender, recipients }),
                Step::Begin(envelope) => return Some(Event::Begin(envelope)),
                Step::Chunk(piece) => return Some(Event::Chunk(piece)),
                Step::End { eight_bit } => return Some(Event::End { eight_bit }),
                Step::Abort => return Some(Event::Abort),
            }
        }
    }

    /// MAIL is answered 530, since the client would have to authenticate.
    pub fn want_authentication(&mut self) {
        self.session.want_authentication();
    }

    /// The answers to [`Event::Verify`], one a recipient, in order.
    pub fn verified(&mut self, verdicts: impl IntoIterator<Item = Result<(), Status>>) {
        self.session.verified(verdicts);
    }

    /// The answer to [`Event::End`].
    pub fn finished(&mut self, status: &Status) {
        self.session.finished(status);
    }

    /// The other answer to [`Event::End`]: none. The connection is closed.
    pub fn hang_up(&mut self) {
        self.session.hang_up();
    }

    /// Who the client says it is, once it has.
    pub fn client(&self) -> Option<&Client> {
        self.session.client()
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The server's address that the client connected to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// TLS version and cipher; `None` in the clear.
    pub fn tls(&self) -> Option<String> {
        self.stream.tls()
    }

    /// Sends the replies and waits for the client, for its time-out, or for the server to go down.
    async fn read(&mut self, until: Instant) -> io::Result<()> {
        self.flush().await?;
        let appetite = self.session.appetite();
        let input = self.session.input();
        input.reserve(appetite);
        let read = timeout_at(until.into(), self.stream.read(input));
        tokio::select! {
            read = read => match read {
                Ok(Ok(0)) => self.session.hang_up(),
                Ok(Ok(_)) => {}
                Ok(Err(reason)) => return Err(reason),
                Err(_) => self.session.time_out(),
            },
            // Said once: from then on the session goes on to the end of its message, if there is one.
            () = self.shutdown.cancelled() => {
                self.session.shut_down();
                self.shutdown = CancellationToken::new();
            }
        }
        Ok(())
    }

    /// Writes all replies that have gathered, together.
    async fn flush(&mut self) -> io::Result<()> {
        let output = self.session.output();
        if !output.is_empty() {
            let output = output.split();
            timeout(self.write_timeout, self.stream.write(&output)).await??;
        }
        Ok(())
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        self.flush().await?;
        let config = self.tls.clone().ok_or(io::ErrorKind::Unsupported)?;
        timeout(self.write_timeout, self.stream.start_tls(&TlsAcceptor::from(config))).await??;
        self.session.secured();
        Ok(())
    }
}
