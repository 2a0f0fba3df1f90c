//! An SMTP client that does just what a test says, right or wrong.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Longer than any answer a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
pub struct SmtpClient {
    stream: BufReader<TcpStream>,
}

/// A reply, its lines joined by line feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The reply code.
    pub code: u16,
    /// What follows the code, a line each.
    pub text: String,
}

impl SmtpClient {
    /// Connects and reads the greeting.
    pub async fn connect(address: SocketAddr) -> Result<(Self, Reply)> {
        Self::greeted(timeout(PATIENCE, TcpStream::connect(address)).await.context("connecting")??).await
    }

    /// The same from an address of one's own: on loopback any of 127.0.0.0/8.
    pub async fn connect_from(local: IpAddr, address: SocketAddr) -> Result<(Self, Reply)> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(local, 0))?;
        Self::greeted(timeout(PATIENCE, socket.connect(address)).await.context("connecting")??).await
    }

    async fn greeted(stream: TcpStream) -> Result<(Self, Reply)> {
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::new(stream) };
        let greeting = client.reply().await?;
        Ok((client, greeting))
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.context("sending")??;
        Ok(())
    }

    /// Reads one reply.
    pub async fn reply(&mut self) -> Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line))
                .await
                .context("waiting for a reply")??;
            ensure!(read > 0, "the server closed the connection after {lines:?}");
            let line = line.strip_suffix("\r\n").with_context(|| format!("no CRLF after {line:?}"))?;
            let (code, rest) = line.split_at_checked(3).with_context(|| format!("short line {line:?}"))?;
            let code: u16 = code.parse().with_context(|| format!("no code in {line:?}"))?;
            match rest.split_at_checked(1) {
                Some(("-", text)) => lines.push(text.to_owned()),
                Some((" ", text)) => {
                    lines.push(text.to_owned());
                    return Ok(Reply { code, text: lines.join("\n") });
                }
                None => return Ok(Reply { code, text: lines.join("\n") }),
                Some(_) => bail!("malformed reply {line:?}"),
            }
        }
    }

    /// Sends a line and reads the reply to it.
    pub async fn command(&mut self, line: &str) -> Result<Reply> {
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends a line and fails unless the reply has this code.
    pub async fn expect(&mut self, line: &str, code: u16) -> Result<Reply> {
        let reply = self.command(line).await?;
        ensure!(reply.code == code, "{line}: wanted {code}, got {reply:?}");
        Ok(reply)
    }

    /// Sends DATA, the content dot-stuffed, and the final dot; the reply to it.
    pub async fn data(&mut self, content: &[u8]) -> Result<Reply> {
        self.expect("DATA", 354).await?;
        self.send(&dot_stuffed(content)).await?;
        self.reply().await
    }
}

/// The content as it goes over the wire after DATA, the final dot included (RFC 5321 §4.5.2).
pub fn dot_stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !wire.is_empty() && !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// Hands one message in over a connection of its own; the reply to the final dot.
pub async fn submit(server: SocketAddr, from: &str, to: &[&str], content: &[u8]) -> Result<Reply> {
    let (mut client, greeting) = SmtpClient::connect(server).await?;
    ensure!(greeting.code == 220, "greeting: {greeting:?}");
    client.expect("EHLO client.test", 250).await?;
    client.expect(&format!("MAIL FROM:<{from}> BODY=8BITMIME"), 250).await?;
    for recipient in to {
        client.expect(&format!("RCPT TO:<{recipient}>"), 250).await?;
    }
    let reply = client.data(content).await?;
    client.expect("QUIT", 221).await?;
    Ok(reply)
}
