//! The session: what is said, in which order, and what follows from it.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use posthorn_mail::{EnhancedStatus, Envelope, Recipient, ReversePath, Status};

use super::command::LONGEST_PARAMETERS;
use super::content::Reader;
use super::lines::LineReader;
use super::settings::Settings;
use super::transaction::Transaction;
use crate::reply;

mod commands;
mod message;

/// What is to be done before the session can go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the output, read into [`Session::input`], and call [`Session::step`] again. When nothing has come by
    /// `until`, call [`Session::time_out`] first.
    Read {
        /// The end of the client's patience that the limits set.
        until: Instant,
    },
    /// May mail from this sender to these recipients be taken? Answer by [`Session::verified`].
    Verify {
        /// As MAIL gave it.
        sender: ReversePath,
        /// Those of a group of RCPT commands that came together.
        recipients: Vec<Recipient>,
    },
    /// Write the output, do the TLS handshake, and answer by [`Session::secured`]; if it fails, close.
    StartTls,
    /// A message begins. Its pieces follow, then [`Step::End`] or [`Step::Abort`].
    Begin(Envelope),
    /// A piece of it: CRLF line ends, no stuffed dots.
    Chunk(Bytes),
    /// It is all there: keep it, and answer by [`Session::finished`].
    End {
        /// There was an octet above 127, whatever BODY= said.
        eight_bit: bool,
    },
    /// It is not to be: forget what came of it.
    Abort,
    /// Write the output and close the connection.
    Close,
}

/// Who the client says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The argument of HELO or EHLO as given: a host name or an address literal.
    pub name: String,
    /// EHLO, not HELO.
    pub extended: bool,
}

/// A session, from the greeting on.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    input: BytesMut,
    output: BytesMut,
    lines: LineReader,
    state: State,
    client: Option<Client>,
    secured: bool,
    /// No mail is taken from the client: it would have to say who it is.
    unknown: bool,
    /// The shell was told of a message's beginning and not yet of its end.
    open: bool,
    /// The last reply is written: nothing more is read.
    ending: bool,
    /// The server goes down: nothing new is begun.
    draining: bool,
    tally: Tally,
    started: Instant,
    /// When the wait for the client began; `None` when it has just done something.
    waiting: Option<Instant>,
}

/// What the limits count.
#[derive(Debug, Default)]
struct Tally {
    errors: u32,
    commands: u32,
    transactions: u32,
}

#[derive(Debug, Default)]
enum State {
    /// No transaction.
    #[default]
    Ready,
    /// MAIL was taken; maybe some RCPT.
    Envelope(Transaction),
    /// The shell is asked about these recipients.
    Asking(Transaction, Vec<Recipient>),
    /// Content is coming: DATA up to its dot, or a chunk.
    Content(Intake),
    /// Between two chunks of a message.
    Chunks(Intake),
    /// The content of a chunk that is refused is coming; the refusal follows it.
    Skipping { left: u64, refusal: Status, back: Box<State> },
    /// The shell has the whole message and is to say what became of it.
    Judging { eight_bit: bool },
    /// The shell is to do the TLS handshake.
    Securing,
}

/// A message whose content is coming in.
#[derive(Debug)]
struct Intake {
    reader: Reader,
    /// Octets of the chunk that are still to come; `None` in DATA.
    left: Option<u64>,
    /// The chunk is the last (always so in DATA).
    last: bool,
}

impl Session {
    /// A session with a client that has just connected. The greeting is in the output.
    pub fn new(settings: Arc<Settings>, now: Instant) -> Self {
        let mut output = BytesMut::new();
        reply::write(&mut output, 220, None, &format!("{} ESMTP Posthorn", settings.hostname));
        Self {
            settings,
            input: BytesMut::new(),
            output,
            lines: LineReader::default(),
            state: State::Ready,
            client: None,
            secured: false,
            unknown: false,
            open: false,
            ending: false,
            draining: false,
            tally: Tally::default(),
            started: now,
            waiting: None,
        }
    }

    /// The client is one that would have to authenticate before MAIL (RFC 6409 §4.3), for which there is no way yet.
    pub fn want_authentication(&mut self) {
        self.unknown = true;
    }

    /// Where to put what the client sends, at [`Step::Read`].
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// How much it is worth reading at once: little between commands, so that idle sessions cost little.
    pub fn appetite(&self) -> usize {
        if matches!(self.state, State::Content(_) | State::Skipping { .. }) { 64 << 10 } else { 4 << 10 }
    }

    /// What is to be written to the client; to be emptied by whoever writes it.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Who the client says it is, once it has.
    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Whether TLS was started.
    pub fn is_secured(&self) -> bool {
        self.secured
    }

    /// What is to be done next. Says [`Step::Verify`], [`Step::StartTls`], [`Step::End`] and [`Step::Close`] again
    /// until they are done; each other step once.
    pub fn step(&mut self, now: Instant) -> Step {
        loop {
            if self.ending {
                self.state = State::Ready;
            }
            let has_message =
                matches!(self.state, State::Content(_) | State::Chunks(_) | State::Judging { .. });
            if self.open && !has_message {
                self.open = false;
                return Step::Abort;
            }
            if self.ending {
                return Step::Close;
            }
            match self.turn() {
                Turn::Step(step) => {
                    self.waiting = None;
                    return step;
                }
                Turn::Again => self.waiting = None,
                Turn::Starved => return Step::Read { until: self.patience(now) },
            }
        }
    }

    /// One thing that can be done with what is there.
    fn turn(&mut self) -> Turn {
        match std::mem::take(&mut self.state) {
            state @ (State::Ready | State::Envelope(_)) if self.draining => {
                self.state = state;
                self.close_with(EnhancedStatus::new(4, 3, 2), "Service shutting down");
                Turn::Again
            }
            state @ (State::Ready | State::Envelope(_) | State::Chunks(_)) => self.read_command(state),
            State::Content(intake) => self.read_content(intake),
            State::Skipping { left, refusal, back } => self.skip(left, refusal, back),
            State::Asking(transaction, recipients) => {
                let step =
                    Step::Verify { sender: transaction.sender().clone(), recipients: recipients.clone() };
                self.state = State::Asking(transaction, recipients);
                Turn::Step(step)
            }
            State::Judging { eight_bit } => {
                self.state = State::Judging { eight_bit };
                Turn::Step(Step::End { eight_bit })
            }
            State::Securing => {
                self.state = State::Securing;
                Turn::Step(Step::StartTls)
            }
        }
    }

    fn read_command(&mut self, state: State) -> Turn {
        let limit = self.settings.command_line + LONGEST_PARAMETERS;
        let Some(line) = self.lines.next(&mut self.input, limit) else {
            self.state = state;
            return Turn::Starved;
        };
        self.tally.commands += 1;
        if self.tally.commands > self.settings.commands {
            self.close_with(EnhancedStatus::new(4, 7, 0), "Too many commands");
            return Turn::Again;
        }
        match self.command(state, line) {
            Some(step) => Turn::Step(step),
            None => Turn::Again,
        }
    }

    /// RFC 5321 §4.5.3.2: when the client has had its time.
    fn patience(&mut self, now: Instant) -> Instant {
        let limit = match self.state {
            State::Content(_) | State::Skipping { .. } => self.settings.data_timeout,
            _ => self.settings.command_timeout,
        };
        let since = *self.waiting.get_or_insert(now);
        (since + limit).min(self.started + self.settings.session_timeout)
    }

    /// The answers to [`Step::Verify`], one a recipient, in order.
    pub fn verified(&mut self, verdicts: impl IntoIterator<Item = Result<(), Status>>) {
        let State::Asking(mut transaction, recipients) = std::mem::take(&mut self.state) else {
            return;
        };
        let missing = || Err(Status::new(451, EnhancedStatus::new(4, 3, 0), "Try again later"));
        let verdicts = verdicts.into_iter().chain(std::iter::repeat_with(missing));
        for (recipient, verdict) in recipients.into_iter().zip(verdicts) {
            match verdict {
                Ok(()) => {
                    transaction.accept(recipient);
                    self.say(250, EnhancedStatus::new(2, 1, 5), "Ok");
                }
                Err(refusal) => self.answer(&refusal),
            }
        }
        self.state = State::Envelope(transaction);
        self.waiting = None;
    }

    /// The answer to [`Step::StartTls`]: the handshake is done. All that was said in the clear is forgotten
    /// (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.input.clear();
        self.state = State::Ready;
        self.client = None;
        self.secured = true;
        self.waiting = None;
    }

    /// The answer to [`Step::End`]: the reply to give.
    pub fn finished(&mut self, status: &Status) {
        self.state = State::Ready;
        self.open = false;
        self.waiting = None;
        if status.code() < 400 {
            self.tally.errors = 0;
        }
        self.answer(status);
    }

    /// The client let [`Step::Read`]'s time pass.
    pub fn time_out(&mut self) {
        self.close_with(EnhancedStatus::new(4, 4, 2), "Timeout");
    }

    /// The client has closed its side.
    pub fn hang_up(&mut self) {
        self.ending = true;
    }

    /// The server goes down: says so as soon as no message is under way.
    pub fn shut_down(&mut self) {
        self.draining = true;
    }

    /// Writes a reply.
    fn tell(&mut self, status: &Status) {
        if !self.ending {
            reply::write(&mut self.output, status.code(), Some(status.enhanced()), status.text());
        }
    }

    /// Writes a reply and counts it if it is a refusal.
    fn answer(&mut self, status: &Status) {
        if self.ending {
            return;
        }
        self.tell(status);
        if status.code() == 421 {
            self.ending = true;
        } else if status.code() >= 400 {
            self.tally.errors += 1;
            if self.tally.errors >= self.settings.errors {
                self.close_with(EnhancedStatus::new(4, 7, 0), "Too many errors");
            }
        }
    }

    fn say(&mut self, code: u16, enhanced: EnhancedStatus, text: &str) {
        if code >= 400 {
            self.answer(&Status::new(code, enhanced, text));
        } else if !self.ending {
            reply::write(&mut self.output, code, Some(enhanced), text);
        }
    }

    /// RFC 5321 §3.8: 421, and the connection is closed.
    fn close_with(&mut self, enhanced: EnhancedStatus, text: &str) {
        if !self.ending {
            let text = format!("{} {text}, closing connection", self.settings.hostname);
            reply::write(&mut self.output, 421, Some(enhanced), &text);
            self.ending = true;
        }
    }
}

/// What came of a turn.
enum Turn {
    Step(Step),
    /// Something was done; there may be more.
    Again,
    /// Nothing can be done before the client says more.
    Starved,
}
