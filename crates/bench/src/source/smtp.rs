//! A session of SMTP, the client's side: as little as it takes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{Load, Taken, Turns};
use crate::letter::{SENDER, letter};

/// Takes turns until there are no more.
pub(super) async fn send(load: &Load, server: SocketAddr, turns: &Turns) -> Result<Vec<Taken>> {
    let (mut taken, mut kept) = (Vec::new(), None);
    while let Some(n) = turns.next(load).await {
        let number = load.first + n;
        let recipients: Vec<&str> = load.recipients_of(n).collect();
        let content = letter(number, load.size);
        let start = Instant::now();
        let mut session = match kept.take() {
            Some(session) => session,
            None => Session::open(server).await?,
        };
        session.transfer(&recipients, content, load.pipelining).await?;
        taken.push((number, start, start.elapsed()));
        if load.keep {
            kept = Some(session);
        } else {
            session.quit().await?;
        }
    }
    if let Some(session) = kept {
        session.quit().await?;
    }
    Ok(taken)
}

/// An open connection, greeted.
#[derive(Debug)]
pub(super) struct Session {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Session {
    /// Connects and says EHLO.
    pub(super) async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await.with_context(|| format!("connecting to {server}"))?;
        stream.set_nodelay(true)?;
        let mut session = Self { stream: BufReader::new(stream), line: String::new() };
        session.expect(220).await?;
        session.say("EHLO source.test\r\n", 250).await?;
        Ok(session)
    }

    async fn transfer(&mut self, recipients: &[&str], mut content: Vec<u8>, pipelining: bool) -> Result<()> {
        if pipelining {
            let mut commands = format!("MAIL FROM:<{SENDER}>\r\n");
            for recipient in recipients {
                let _ = write!(commands, "RCPT TO:<{recipient}>\r\n");
            }
            commands.push_str("DATA\r\n");
            self.stream.get_mut().write_all(commands.as_bytes()).await?;
            for _ in 0..=recipients.len() {
                self.expect(250).await?;
            }
            self.expect(354).await?;
        } else {
            self.say(&format!("MAIL FROM:<{SENDER}>\r\n"), 250).await?;
            for recipient in recipients {
                self.say(&format!("RCPT TO:<{recipient}>\r\n"), 250).await?;
            }
            self.say("DATA\r\n", 354).await?;
        }
        content.extend_from_slice(b".\r\n");
        self.stream.get_mut().write_all(&content).await?;
        self.expect(250).await
    }

    async fn quit(mut self) -> Result<()> {
        self.say("QUIT\r\n", 221).await
    }

    async fn say(&mut self, command: &str, want: u16) -> Result<()> {
        self.stream.get_mut().write_all(command.as_bytes()).await?;
        self.expect(want).await.with_context(|| format!("after {}", command.trim_end()))
    }

    /// Reads one reply, of however many lines.
    async fn expect(&mut self, want: u16) -> Result<()> {
        loop {
            self.line.clear();
            ensure!(self.stream.read_line(&mut self.line).await? > 0, "the server hung up");
            if self.line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            let code = self.line.get(..3).and_then(|code| code.parse().ok());
            if code != Some(want) {
                bail!("the server said {:?}, not {want}", self.line.trim_end());
            }
            return Ok(());
        }
    }
}
