//! One connection of the scripted server.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::script::{Action, At, Tls};
use super::{Received, Shared, lock};

/// How far a connection has come.
enum Next {
    Closed,
    StartTls,
}

struct Session<'a, S> {
    stream: BufReader<S>,
    number: usize,
    shared: &'a Shared,
    tls: bool,
    helo: String,
    mail: Option<String>,
    rcpt: Vec<String>,
    chunks: Vec<u8>,
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, number: usize, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(stream, number, shared, false);
    if !session.at(At::Connect, "", &format!("220 {} ESMTP", session.name())).await? {
        return Ok(());
    }
    if matches!(session.talk().await?, Next::Closed) {
        return Ok(());
    }
    let plain = session.stream.into_inner();
    let stream = TlsAcceptor::from(certificate()).accept(plain).await?;
    let mut session = Session::new(stream, number, shared, true);
    session.talk().await?;
    Ok(())
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(stream: S, number: usize, shared: &'a Shared, tls: bool) -> Self {
        let stream = BufReader::new(stream);
        let (helo, mail, rcpt, chunks) = (String::new(), None, Vec::new(), Vec::new());
        Self { stream, number, shared, tls, helo, mail, rcpt, chunks }
    }

    fn name(&self) -> String {
        lock(&self.shared.script).name.clone()
    }

    async fn talk(&mut self) -> Result<Next> {
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                return Ok(Next::Closed);
            }
            let line = String::from_utf8(line)?;
            let line = line.strip_suffix("\r\n").with_context(|| format!("{line:?} has no CRLF"))?;
            lock(&self.shared.lines).push(line.to_owned());
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            let go_on = match verb.to_ascii_uppercase().as_str() {
                "EHLO" => self.ehlo(rest, line).await?,
                "HELO" => {
                    self.helo = rest.to_owned();
                    let reply = format!("250 {}", self.name());
                    self.at(At::Helo, line, &reply).await?
                }
                "STARTTLS" => {
                    let tls = lock(&self.shared.script).tls;
                    match tls {
                        Tls::None => self.reply("502 5.5.1 no").await?,
                        Tls::Broken => {
                            self.reply("220 go on").await?;
                            // The client begins.
                            self.stream.fill_buf().await?;
                            self.stream.get_mut().write_all(b"this is no TLS\r\n").await?;
                            return Ok(Next::Closed);
                        }
                        Tls::SelfSigned if self.at(At::StartTls, line, "220 go on").await? => {
                            return Ok(Next::StartTls);
                        }
                        Tls::SelfSigned => false,
                    }
                }
                "MAIL" => self.mail(line).await?,
                "RCPT" => self.rcpt(line).await?,
                "DATA" => self.data(line).await?,
                "BDAT" => self.bdat(line, rest).await?,
                "RSET" => {
                    self.reset();
                    self.at(At::Rset, line, "250 2.0.0 ok").await?
                }
                "QUIT" => {
                    self.at(At::Quit, line, "221 2.0.0 bye").await?;
                    false
                }
                "NOOP" => self.reply("250 2.0.0 ok").await?,
                _ => self.reply("500 5.5.2 what?").await?,
            };
            if !go_on {
                return Ok(Next::Closed);
            }
        }
    }

    async fn ehlo(&mut self, helo: &str, line: &str) -> Result<bool> {
        self.helo = helo.to_owned();
        self.reset();
        let mut lines = vec![self.name()];
        let under_tls = self.tls;
        let offered = lock(&self.shared.script).extensions.clone();
        lines.extend(offered.into_iter().filter(|extension| !under_tls || extension != "STARTTLS"));
        let last = lines.len() - 1;
        let mark = |at: usize| if at == last { ' ' } else { '-' };
        let reply: Vec<String> =
            lines.iter().enumerate().map(|(at, text)| format!("250{}{text}", mark(at))).collect();
        self.at(At::Ehlo, line, &reply.join("\n")).await
    }

    async fn mail(&mut self, line: &str) -> Result<bool> {
        let argument = line.get("MAIL FROM:".len()..).unwrap_or_default().to_owned();
        // RFC 5321 §4.1.1.11: a parameter that was not offered.
        let unknown = |parameter: &str| {
            let script = lock(&self.shared.script);
            let keyword = match parameter.split('=').next().unwrap_or_default() {
                "BODY" if parameter == "BODY=BINARYMIME" => "BINARYMIME",
                "BODY" => "8BITMIME",
                "RET" | "ENVID" => "DSN",
                keyword => keyword,
            };
            !script.offers(keyword)
        };
        if argument.split(' ').skip(1).any(unknown) {
            return self.reply("555 5.5.4 that was not offered").await;
        }
        if self.mail.is_some() {
            return self.reply("503 5.5.1 there is a transaction already").await;
        }
        let action = self.act(At::Mail, line, "250 2.1.0 ok").await?;
        if action.accepted() {
            self.mail = Some(argument);
        }
        Ok(action.goes_on)
    }

    async fn rcpt(&mut self, line: &str) -> Result<bool> {
        if self.mail.is_none() {
            return self.reply("503 5.5.1 MAIL first").await;
        }
        let action = self.act(At::Rcpt, line, "250 2.1.5 ok").await?;
        if action.accepted() {
            self.rcpt.push(line.get("RCPT TO:".len()..).unwrap_or_default().to_owned());
        }
        Ok(action.goes_on)
    }

    async fn data(&mut self, line: &str) -> Result<bool> {
        if self.rcpt.is_empty() {
            return self.reply("554 5.5.1 no valid recipients").await;
        }
        let action = self.act(At::Data, line, "354 go on").await?;
        if !action.reply.starts_with('3') {
            return Ok(action.goes_on);
        }
        if !self.at_silently(At::Content).await? {
            return Ok(false);
        }
        let mut content = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                bail!("cut before the dot");
            }
            match line.as_slice() {
                b".\r\n" => break,
                [b'.', rest @ ..] => content.extend_from_slice(rest),
                line => content.extend_from_slice(line),
            }
        }
        self.end(content).await
    }

    async fn bdat(&mut self, line: &str, argument: &str) -> Result<bool> {
        let (size, last) = argument.split_once(' ').map_or((argument, false), |(size, _)| (size, true));
        let mut chunk = vec![0; size.parse().with_context(|| format!("{line:?}"))?];
        self.stream.read_exact(&mut chunk).await?;
        if !lock(&self.shared.script).offers("CHUNKING") {
            return self.reply("502 5.5.1 no").await;
        }
        if self.rcpt.is_empty() {
            return self.reply("554 5.5.1 no valid recipients").await;
        }
        self.chunks.extend(chunk);
        if !last {
            return self.reply("250 2.0.0 go on").await;
        }
        let content = std::mem::take(&mut self.chunks);
        self.end(content).await
    }

    /// The message has come to its end.
    async fn end(&mut self, content: Vec<u8>) -> Result<bool> {
        let received = Received {
            connection: self.number,
            tls: self.tls,
            helo: self.helo.clone(),
            mail: self.mail.take().unwrap_or_default(),
            rcpt: std::mem::take(&mut self.rcpt),
            content,
            answer: None,
            at: Instant::now(),
        };
        let at = {
            let mut all = lock(&self.shared.received);
            all.push(received);
            all.len() - 1
        };
        let action = self.choose(At::EndOfData, "");
        let (reply, goes_on) = match self.reply_of(action, "250 2.0.0 taken").await {
            Some(reply) => reply,
            None => return Ok(false),
        };
        // Written down before it is said: who hears it may look at once.
        lock(&self.shared.received)[at].answer = Some(reply.clone());
        self.reply(&reply).await?;
        Ok(goes_on)
    }

    fn reset(&mut self) {
        self.mail = None;
        self.rcpt.clear();
        self.chunks.clear();
    }

    fn choose(&self, at: At, line: &str) -> Option<Action> {
        lock(&self.shared.script).action(at, line)
    }

    /// What to say, and whether to go on after it; `None`: close at once.
    async fn reply_of(&mut self, action: Option<Action>, usual: &str) -> Option<(String, bool)> {
        match action {
            None => Some((usual.to_owned(), true)),
            Some(Action::Reply(reply)) => Some((reply, true)),
            Some(Action::ReplyAndClose(reply)) => Some((reply, false)),
            Some(Action::Drop) => None,
            Some(Action::BreakOff(text)) => {
                let _ = self.stream.get_mut().write_all(text.as_bytes()).await;
                let _ = self.stream.get_mut().flush().await;
                None
            }
            Some(Action::Hang) => std::future::pending().await,
            Some(Action::Wait(time)) => {
                tokio::time::sleep(time).await;
                Some((usual.to_owned(), true))
            }
        }
    }

    async fn act(&mut self, at: At, line: &str, usual: &str) -> Result<Acted> {
        let action = self.choose(at, line);
        let Some((reply, goes_on)) = self.reply_of(action, usual).await else {
            return Ok(Acted { reply: String::new(), goes_on: false });
        };
        self.reply(&reply).await?;
        Ok(Acted { reply, goes_on })
    }

    /// Whether to go on.
    async fn at(&mut self, at: At, line: &str, usual: &str) -> Result<bool> {
        Ok(self.act(at, line, usual).await?.goes_on)
    }

    /// The same where nothing is usually said.
    async fn at_silently(&mut self, at: At) -> Result<bool> {
        let Some(action) = self.choose(at, "") else { return Ok(true) };
        self.stream.fill_buf().await?;
        match self.reply_of(Some(action), "").await {
            None => Ok(false),
            Some((reply, goes_on)) => {
                if !reply.is_empty() {
                    self.reply(&reply).await?;
                }
                Ok(goes_on)
            }
        }
    }

    async fn reply(&mut self, reply: &str) -> Result<bool> {
        let text = reply.replace('\n', "\r\n") + "\r\n";
        let stream = self.stream.get_mut();
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await?;
        Ok(true)
    }
}

struct Acted {
    reply: String,
    goes_on: bool,
}

impl Acted {
    fn accepted(&self) -> bool {
        self.reply.starts_with('2')
    }
}

/// A certificate that no one has signed, made once.
fn certificate() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let made = rcgen::generate_simple_self_signed(vec!["mx.test".to_owned()])
                .expect("a certificate can be made");
            let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("ring can do TLS 1.2 and 1.3")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .expect("the certificate fits the key");
            Arc::new(config)
        })
        .clone()
}
