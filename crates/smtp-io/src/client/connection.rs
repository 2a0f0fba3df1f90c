//! One connection, from the first packet to QUIT.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use posthorn_mail::{EnhancedStatus, RemoteServer, Status};
use posthorn_smtp::client::{Answer, Capabilities, Ending, Session, Settings, Step, Transaction};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{timeout, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::content::{Content, WriteError, write, write_content};
use super::tls;

/// Where to connect to, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the server is called: in TLS (SNI) and in outcomes.
    pub host: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// The address to connect from; where it is of the other family, the system chooses.
    pub bind_address: Option<IpAddr>,
    /// How long connecting may take, and TLS's handshake.
    pub connect_timeout: Duration,
    /// How to talk.
    pub settings: Settings,
}

/// No transaction can be begun on this server now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// The server was not reached.
    Connect(Status),
    /// It was, and the session ended at once.
    Ended(Ending),
}

impl OpenError {
    /// What to tell of those who wait for it.
    pub fn status(&self) -> Status {
        match self {
            Self::Connect(status) => status.clone(),
            Self::Ended(ending) => ending.status(),
        }
    }
}

/// A connection on which transactions can be done, one after another.
#[derive(Debug)]
pub struct Connection {
    session: Session,
    /// `None` once it is closed.
    stream: Option<Stream>,
    remote: RemoteServer,
    block: Duration,
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Connection {
    /// Connects and goes on until the server is ready for a transaction.
    ///
    /// Where TLS does not come about, a second connection goes without it: opportunistic TLS defends against those who
    /// only listen, and no TLS is no reason not to deliver (RFC 7435, Postfix's `may`).
    pub async fn open(target: &Target) -> Result<Self, OpenError> {
        if let Some(connection) = Self::try_open(target, target.settings.clone()).await? {
            return Ok(connection);
        }
        tracing::debug!(host = target.host, address = %target.address, "TLS failed, going on in the clear");
        let in_the_clear = Settings { starttls: false, ..target.settings.clone() };
        Ok(Self::try_open(target, in_the_clear).await?.expect("TLS cannot fail where it is not begun"))
    }

    /// `None`: TLS was begun and did not come about.
    async fn try_open(target: &Target, settings: Settings) -> Result<Option<Self>, OpenError> {
        let stream = connect(target).await.map_err(|why| OpenError::Connect(unreachable(target, &why)))?;
        let mut connection = Self {
            block: settings.timeouts.block,
            session: Session::new(settings, Instant::now()),
            stream: Some(Stream::Left(stream)),
            remote: RemoteServer {
                host: target.host.clone(),
                address: target.address.to_string(),
                tls: String::new(),
            },
        };
        loop {
            match connection.drive().await {
                Step::Ready => return Ok(Some(connection)),
                Step::StartTls => {
                    if let Err(why) = connection.start_tls(target).await {
                        let (host, address) = (&target.host, target.address);
                        tracing::debug!(host, %address, %why, "the TLS handshake failed");
                        return Ok(None);
                    }
                }
                Step::Close(ending) => return Err(OpenError::Ended(ending)),
                step => unreachable!("no transaction was begun: {step:?}"),
            }
        }
    }

    /// The server that was connected to.
    pub fn remote(&self) -> &RemoteServer {
        &self.remote
    }

    /// What the server offers.
    pub fn capabilities(&self) -> &Capabilities {
        self.session.capabilities()
    }

    /// Does one transaction: one answer per recipient, in order. `content` is read only when a recipient was accepted.
    pub async fn transfer(&mut self, transaction: Transaction, content: Content) -> Vec<Answer> {
        let size = transaction.size;
        self.session.begin(transaction);
        let mut content = Some(content);
        loop {
            match self.drive().await {
                Step::Content(framing) => {
                    let content = content.take().expect("a transaction writes its content once");
                    let Some(stream) = &mut self.stream else {
                        self.session.disconnected("it is closed");
                        continue;
                    };
                    match write_content(stream, content, size, framing, self.block).await {
                        Ok(()) => self.session.content_sent(Instant::now()),
                        Err(WriteError::Connection(why)) => self.broke_off(&why).await,
                        Err(WriteError::Content(why)) => {
                            self.stream = None;
                            let status = Status::new(451, EnhancedStatus::new(4, 3, 0), why.to_string());
                            self.session.content_unavailable(status);
                        }
                    }
                }
                Step::Done(answers) => return answers,
                step => unreachable!("a transaction is under way: {step:?}"),
            }
        }
    }

    /// Breaks off a [`Connection::transfer`] whose future was dropped: the answers as far as they are known.
    pub fn abandon(&mut self, why: &str) -> Vec<Answer> {
        self.stream = None;
        self.session.disconnected(why);
        match self.session.step(Instant::now()) {
            Step::Done(answers) => answers,
            _ => Vec::new(),
        }
    }

    /// Whether another transaction can be begun: the session is not over, and the server has neither closed nor said
    /// anything since.
    pub fn is_usable(&mut self) -> bool {
        if !matches!(self.session.step(Instant::now()), Step::Ready) {
            return false;
        }
        let Some(stream) = &mut self.stream else { return false };
        let mut buffer = [0; 1];
        let read = std::pin::pin!(stream.read(&mut buffer));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::future::Future::poll(read, &mut context).is_pending()
    }

    /// Says goodbye, and waits a little for the answer.
    pub async fn quit(mut self) {
        self.session.quit();
        // Nothing depends on how it ends.
        let _ = self.drive().await;
    }

    /// Does what the session wants until it wants something that is not reading or writing commands.
    async fn drive(&mut self) -> Step {
        loop {
            match self.session.step(Instant::now()) {
                Step::Send(bytes) => {
                    let result = match &mut self.stream {
                        Some(stream) => write(stream, &bytes, self.block).await,
                        None => Err(io::ErrorKind::NotConnected.into()),
                    };
                    if let Err(why) = result {
                        self.broke_off(&why).await;
                    }
                }
                Step::Receive { until } => self.receive(until).await,
                Step::Close(ending) => {
                    self.stream = None;
                    return Step::Close(ending);
                }
                step => return step,
            }
        }
    }

    async fn receive(&mut self, until: Instant) {
        let Some(stream) = &mut self.stream else { return self.session.disconnected("it is closed") };
        let mut buffer = [0; 4096];
        match timeout_at(until.into(), stream.read(&mut buffer)).await {
            Ok(Ok(0)) => self.session.disconnected("the server closed it"),
            Ok(Ok(count)) => self.session.received(&buffer[..count]),
            Ok(Err(why)) => self.session.disconnected(&why.to_string()),
            // The session looks at the clock itself.
            Err(_) => {}
        }
    }

    /// Writing failed. What the server said before it closed may tell why.
    async fn broke_off(&mut self, why: &io::Error) {
        if let Some(stream) = &mut self.stream {
            let mut buffer = [0; 4096];
            if let Ok(Ok(count)) = timeout(Duration::from_millis(100), stream.read(&mut buffer)).await {
                self.session.received(&buffer[..count]);
            }
        }
        self.stream = None;
        self.session.disconnected(&why.to_string());
    }

    async fn start_tls(&mut self, target: &Target) -> io::Result<()> {
        let Some(Stream::Left(plain)) = self.stream.take() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let tls = timeout(target.connect_timeout, tls::handshake(plain, &target.host)).await??;
        self.remote.tls = tls::describe(&tls);
        self.stream = Some(Stream::Right(Box::new(tls)));
        self.session.tls_started();
        Ok(())
    }
}

async fn connect(target: &Target) -> io::Result<TcpStream> {
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = target.bind_address.filter(|local| local.is_ipv4() == target.address.is_ipv4()) {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    // Small writes would wait for the server's delayed ACK.
    socket.set_nodelay(true)?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer");
    timeout(target.connect_timeout, socket.connect(target.address)).await.map_err(late)?
}

fn unreachable(target: &Target, why: &io::Error) -> Status {
    let Target { host, address, .. } = target;
    Status::new(451, EnhancedStatus::new(4, 4, 1), format!("cannot connect to {host} at {address}: {why}"))
}
