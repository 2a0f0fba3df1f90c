//! For tests: a shell around a session that has neither socket nor clock: it answers by simple rules and writes down what
//! happens, as the lines of a transcript.

use std::sync::Arc;
use std::time::{Duration, Instant};

use posthorn_mail::{EnhancedStatus, Envelope, Recipient, Status};
use posthorn_smtp::server::{Session, Settings, Step};

/// A session under test.
pub(crate) struct Shell {
    session: Session,
    now: Instant,
    until: Option<Instant>,
    content: Vec<u8>,
    /// What happened, in order: `S: reply`, `E: event`.
    pub(crate) lines: Vec<String>,
    pub(crate) closed: bool,
}

/// The settings of a transcript's session, before its `!` lines change them.
pub(crate) fn settings() -> Settings {
    Settings::new("mx.example.test", "postmaster@example.test".parse().expect("an address"))
}

impl Shell {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let mut shell = Self {
            session: Session::new(Arc::new(settings), now),
            now,
            until: None,
            content: Vec::new(),
            lines: Vec::new(),
            closed: false,
        };
        shell.go_on();
        shell
    }

    /// The client sends this.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.session.input().extend_from_slice(bytes);
            self.go_on();
        }
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        if self.until.is_some_and(|until| self.now >= until) && !self.closed {
            self.session.time_out();
            self.go_on();
        }
    }

    pub(crate) fn want_authentication(&mut self) {
        self.session.want_authentication();
    }

    pub(crate) fn shut_down(&mut self) {
        self.session.shut_down();
        self.go_on();
    }

    pub(crate) fn hang_up(&mut self) {
        self.session.hang_up();
        self.go_on();
    }

    fn go_on(&mut self) {
        loop {
            let step = self.session.step(self.now);
            let output = self.session.output().split();
            let output = std::str::from_utf8(&output).expect("replies are ASCII");
            assert!(output.is_empty() || output.ends_with("\r\n"));
            self.lines.extend(output.split_terminator("\r\n").map(|line| format!("S: {line}")));
            match step {
                Step::Read { until } => {
                    self.until = Some(until);
                    return;
                }
                Step::Verify { sender, recipients } => {
                    let to: Vec<_> = recipients.iter().map(|r| format!("<{}>", r.address)).collect();
                    self.event(format!("verify from=<{sender}> to={}", to.join(",")));
                    self.session.verified(recipients.iter().map(verdict));
                }
                Step::StartTls => {
                    self.event("tls");
                    self.session.secured();
                }
                Step::Begin(envelope) => self.event(format!("begin {}", shown(&envelope))),
                Step::Chunk(piece) => self.content.extend_from_slice(&piece),
                Step::End { eight_bit } => {
                    let content = std::mem::take(&mut self.content);
                    self.event(format!("content {}", escape(&content)));
                    self.event(if eight_bit { "end 8-bit" } else { "end" });
                    self.session.finished(&queued(&content));
                }
                Step::Abort => {
                    self.content.clear();
                    self.event("abort");
                }
                Step::Close => {
                    self.event("close");
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn event(&mut self, event: impl AsRef<str>) {
        self.lines.push(format!("E: {}", event.as_ref()));
    }
}

/// What the local part asks for.
fn verdict(recipient: &Recipient) -> Result<(), Status> {
    match recipient.address.local() {
        local if local.starts_with("unknown") => {
            Err(Status::new(550, EnhancedStatus::new(5, 1, 1), "No such user"))
        }
        "later" => Err(Status::new(451, EnhancedStatus::new(4, 3, 0), "Try again later")),
        _ => Ok(()),
    }
}

/// What the content asks for.
fn queued(content: &[u8]) -> Status {
    if content.starts_with(b"Refuse") {
        Status::new(554, EnhancedStatus::new(5, 7, 1), "Refused")
    } else {
        Status::new(250, EnhancedStatus::new(2, 0, 0), "Ok: queued")
    }
}

fn shown(envelope: &Envelope) -> String {
    let mut text = format!("from=<{}>", envelope.sender);
    for Recipient { address, notify, original_recipient } in &envelope.recipients {
        text += &format!(" to=<{address}>");
        text += &notify.map(|notify| format!(" notify={notify:?}")).unwrap_or_default();
        text += &original_recipient.as_ref().map(|o| format!(" orcpt={o}")).unwrap_or_default();
    }
    text += &match envelope.body {
        posthorn_mail::Body::SevenBit => String::new(),
        body => format!(" body={body:?}"),
    };
    text += if envelope.smtputf8 { " smtputf8" } else { "" };
    text += &envelope.ret.map(|ret| format!(" ret={ret:?}")).unwrap_or_default();
    text + &envelope.envelope_id.as_ref().map(|id| format!(" envid={id}")).unwrap_or_default()
}

/// Bytes on one line; long content as its size.
pub(crate) fn escape(bytes: &[u8]) -> String {
    if bytes.len() > 200 { format!("of {} octets", bytes.len()) } else { bytes.escape_ascii().to_string() }
}

/// The bytes behind a transcript's text: `\r`, `\n`, `\0`, `\t`, `\\`, `\xNN`, and `{x*100}` for a hundred `x`.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let escape = rest.chars().next().expect("an escape has a letter");
                rest = &rest[escape.len_utf8()..];
                bytes.push(match escape {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    '0' => 0,
                    '\\' => b'\\',
                    'x' => {
                        let (hex, after) = rest.split_at(2);
                        rest = after;
                        u8::from_str_radix(hex, 16).expect("two hexadecimal digits")
                    }
                    other => panic!("no escape: \\{other}"),
                });
            }
            '{' if rest.contains('}') && rest.contains('*') => {
                let (repeat, after) = rest.split_once('}').expect("a closing brace");
                let (what, times) = repeat.rsplit_once('*').expect("text*times");
                bytes.extend(unescape(what).repeat(times.parse().expect("a number of times")));
                rest = after;
            }
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}
