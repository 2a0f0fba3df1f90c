//! A receiving server that does as little as one can: takes every message, and counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How a sink treats its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers at once.
    Takes,
    /// Thinks so long before it answers the final dot.
    Slow(Duration),
    /// Accepts connections and says nothing.
    Hangs,
}

/// A sink that runs as long as this process.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    address: SocketAddr,
    taken: watch::Receiver<u64>,
}

impl Sink {
    /// One on a port of its own, on loopback.
    pub(crate) async fn start(manner: Manner) -> Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), manner).await
    }

    /// One on this address.
    pub(crate) async fn listen(address: SocketAddr, manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        let address = listener.local_addr()?;
        let (count, taken) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let count = count.clone();
                // A client that breaks off is the client's matter: what counts is what was taken.
                tokio::spawn(async move { serve(client, manner, &count).await });
            }
        });
        Ok(Self { address, taken })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Messages taken so far.
    pub(crate) fn taken(&self) -> u64 {
        *self.taken.borrow()
    }

    /// Waits until so many have been taken since it began.
    pub(crate) async fn wait_for(&mut self, messages: u64) -> Result<()> {
        self.taken.wait_for(|taken| *taken >= messages).await.context("the sink has ended")?;
        Ok(())
    }
}

async fn serve(mut client: TcpStream, manner: Manner, count: &watch::Sender<u64>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    if manner == Manner::Hangs {
        // Until the client has had enough.
        return tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop);
    }
    client.write_all(b"220 sink.test ESMTP\r\n").await?;
    let (mut input, mut session) = (BytesMut::with_capacity(16 << 10), Session::default());
    loop {
        let mut replies = Vec::new();
        let dots = session.take(&mut input, &mut replies);
        if dots > 0 {
            if let Manner::Slow(pause) = manner {
                tokio::time::sleep(pause).await;
            }
            count.send_modify(|taken| *taken += dots);
        }
        if !replies.is_empty() {
            client.write_all(&replies).await?;
        }
        if session.quit || client.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// The server's side of SMTP, as far as a well-behaved client needs it.
#[derive(Debug, Default)]
struct Session {
    in_content: bool,
    quit: bool,
}

impl Session {
    /// Takes what is whole in `input`, adds the replies, and tells how many messages came to their end.
    fn take(&mut self, input: &mut BytesMut, replies: &mut Vec<u8>) -> u64 {
        let mut dots = 0;
        while !self.quit {
            if self.in_content {
                let Some(at) = memchr::memmem::find(input, b"\r\n.\r\n") else {
                    // All but what may be the beginning of the end.
                    input.advance(input.len().saturating_sub(4));
                    break;
                };
                input.advance(at + 5);
                self.in_content = false;
                dots += 1;
                replies.extend_from_slice(b"250 2.0.0 taken\r\n");
            } else {
                let Some(end) = memchr::memchr(b'\n', input) else { break };
                let line = input.split_to(end + 1);
                replies.extend_from_slice(self.command(&line));
            }
        }
        dots
    }

    fn command(&mut self, line: &[u8]) -> &'static [u8] {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match &verb[..] {
            b"EHLO" => b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0\r\n",
            b"DATA" => {
                self.in_content = true;
                b"354 go on\r\n"
            }
            b"QUIT" => {
                self.quit = true;
                b"221 2.0.0 bye\r\n"
            }
            _ => b"250 2.0.0 ok\r\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &[u8] =
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\nDATA\r\nx: y\r\n\r\n.z\r\n.\r\nMAIL FROM:<>\r\nQUIT\r\n";

    #[test]
    fn a_message_is_counted_however_it_is_cut() {
        for piece in [1, 3, 7, SAID.len()] {
            let (mut session, mut input) = (Session::default(), BytesMut::new());
            let (mut replies, mut dots) = (Vec::new(), 0);
            for part in SAID.chunks(piece) {
                input.extend_from_slice(part);
                dots += session.take(&mut input, &mut replies);
            }
            assert_eq!(dots, 1, "in pieces of {piece}");
            assert!(session.quit);
            let codes: Vec<&str> = std::str::from_utf8(&replies).unwrap().lines().map(|l| &l[..4]).collect();
            let want = ["250-", "250-", "250-", "250 ", "250 ", "250 ", "354 ", "250 ", "250 ", "221 "];
            assert_eq!(codes, want);
        }
    }
}
