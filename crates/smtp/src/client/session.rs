//! A connection from its greeting to its end.

use std::time::Instant;

use posthorn_mail::{EnhancedStatus, Status};

use super::ending::{Ending, out_of_place, protocol_error, said_too_much, unavailable};
use super::exchange::{Exchange, Next};
use super::{Answer, Capabilities, Framing, Reply, ReplyReader, Timeouts, Transaction};

/// What a session is to know beforehand.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What to call ourselves in EHLO: a name or an address literal.
    pub hostname: String,
    /// Further names of ours: a server that greets with one of them, or with `hostname`, is ourselves. Names without a
    /// domain, and `localhost.localdomain`, are anybody's and do not count.
    pub own_names: Vec<String>,
    /// Use STARTTLS where it is offered.
    pub starttls: bool,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// What the owner of the socket is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write these bytes, at once and in one piece.
    Send(Vec<u8>),
    /// Read, and give what came to [`Session::received`]; at `until` ask for the next step all the same.
    Receive {
        /// The point in time at which the session gives up waiting.
        until: Instant,
    },
    /// Shake hands for TLS, then call [`Session::tls_started`].
    StartTls,
    /// Write the content, then call [`Session::content_sent`].
    Content(Framing),
    /// The server is ready for a transaction: call [`Session::begin`] or [`Session::quit`].
    Ready,
    /// A transaction is over: the answers, one a recipient, in order.
    Done(Vec<Answer>),
    /// The connection is of no more use: close it.
    Close(Ending),
}

/// The client's side of one SMTP connection, without the connection.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    replies: ReplyReader,
    state: State,
    capabilities: Capabilities,
    encrypted: bool,
    /// STARTTLS was said, and no EHLO was answered under TLS yet.
    starting_tls: bool,
    /// A transaction was left open on the server: RSET before the next.
    open_on_server: bool,
    deadline: Instant,
}

#[derive(Debug)]
enum State {
    Say(Vec<u8>, Awaited),
    Await(Awaited),
    Handshake,
    Ready,
    Transaction(Box<Exchange>),
    Over(Vec<Answer>, Option<Ending>),
    Closed(Ending),
}

/// Replies outside of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Quit,
}

impl Session {
    /// A session on a connection that was opened just now.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            deadline: now + settings.timeouts.greeting,
            settings,
            replies: ReplyReader::default(),
            state: State::Await(Awaited::Greeting),
            capabilities: Capabilities::default(),
            encrypted: false,
            starting_tls: false,
            open_on_server: false,
        }
    }

    /// What the server offers; known once the session was ready.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether TLS is being started: a connection that is lost now may be lost for that.
    pub fn is_starting_tls(&self) -> bool {
        self.starting_tls
    }

    /// What to do now.
    pub fn step(&mut self, now: Instant) -> Step {
        loop {
            let state = std::mem::replace(&mut self.state, State::Ready);
            let step = match state {
                State::Say(bytes, awaited) => {
                    self.wait_for(awaited, now);
                    Some(Step::Send(bytes))
                }
                State::Await(awaited) => self.receive(State::Await(awaited), now),
                State::Transaction(exchange) => self.step_transaction(exchange, now),
                State::Over(answers, ending) => {
                    self.state = ending.map_or_else(|| self.ready(), State::Closed);
                    Some(Step::Done(answers))
                }
                State::Handshake => {
                    self.state = State::Handshake;
                    Some(Step::StartTls)
                }
                State::Ready => Some(Step::Ready),
                State::Closed(ending) => {
                    self.state = State::Closed(ending.clone());
                    Some(Step::Close(ending))
                }
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn step_transaction(&mut self, mut exchange: Box<Exchange>, now: Instant) -> Option<Step> {
        match exchange.next() {
            Next::Send(bytes) => {
                self.deadline = now + exchange.patience(&self.settings.timeouts).0;
                self.state = State::Transaction(exchange);
                Some(Step::Send(bytes))
            }
            Next::Content(framing) => {
                self.state = State::Transaction(exchange);
                if self.answers_too_soon() {
                    self.end(Ending::Lost(said_too_much()));
                    return None;
                }
                Some(Step::Content(framing))
            }
            Next::Await => self.receive(State::Transaction(exchange), now),
            Next::Done(answers) => {
                self.open_on_server = exchange.leaves_open();
                self.state = State::Over(answers, None);
                None
            }
        }
    }

    /// Looks for a reply in what came; asks for more when there is none yet.
    fn receive(&mut self, state: State, now: Instant) -> Option<Step> {
        self.state = state;
        match self.replies.next_reply() {
            Ok(Some(reply)) => self.replied(&reply, now),
            Ok(None) if now < self.deadline => return Some(Step::Receive { until: self.deadline }),
            Ok(None) => {
                let status = unavailable(format!("the server did not answer {} in time", self.awaiting()));
                self.end(Ending::Lost(status));
            }
            Err(error) => self.end(Ending::Lost(protocol_error(error.to_string()))),
        }
        None
    }

    fn replied(&mut self, reply: &Reply, now: Instant) {
        // RFC 5321 §3.8: 421 may be the reply to anything, and the server closes.
        if reply.code() == 421 && !matches!(self.state, State::Await(Awaited::Quit)) {
            return self.end(Ending::Refused(reply.status()));
        }
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Await(awaited) => self.state = self.next_state(awaited, reply),
            State::Transaction(mut exchange) => {
                let taken = exchange.replied(reply);
                self.deadline = now + exchange.patience(&self.settings.timeouts).0;
                self.state = State::Transaction(exchange);
                if taken.is_err() {
                    self.end(Ending::Lost(out_of_place(reply)));
                }
            }
            state => self.state = state,
        }
    }

    /// What follows a reply outside of transactions.
    fn next_state(&mut self, awaited: Awaited, reply: &Reply) -> State {
        match (awaited, reply.code() / 100) {
            (Awaited::Quit, _) => State::Closed(Ending::Quit),
            (Awaited::Greeting, 2) => self.greeted(reply),
            (Awaited::Ehlo, 2) => {
                self.capabilities = Capabilities::of_reply(reply);
                self.starting_tls = self.capabilities.starttls && self.settings.starttls && !self.encrypted;
                if self.starting_tls {
                    State::Say(b"STARTTLS\r\n".to_vec(), Awaited::StartTls)
                } else {
                    self.ready()
                }
            }
            // RFC 5321 §3.2: an old server; without extensions then.
            (Awaited::Ehlo, 5) => self.hello("HELO", Awaited::Helo),
            (Awaited::Helo, 2) => self.ready(),
            // What comes in the clear behind the 220 would be taken for the encrypted server's words.
            (Awaited::StartTls, 2) if !self.replies.is_empty() => {
                State::Closed(Ending::Lost(protocol_error("the server spoke before TLS was on".to_owned())))
            }
            (Awaited::StartTls, 2) => State::Handshake,
            // Offered but refused: opportunistic TLS goes on in the clear.
            (Awaited::StartTls, 4 | 5) => {
                self.starting_tls = false;
                self.ready()
            }
            (Awaited::Greeting | Awaited::Ehlo | Awaited::Helo, 4 | 5) => {
                State::Closed(Ending::Refused(reply.status()))
            }
            _ => State::Closed(Ending::Lost(out_of_place(reply))),
        }
    }

    /// Whether there is an answer to the message already, and a good one: it would be taken for that to what the server
    /// has not heard yet. A refusal may come as early as it likes.
    fn answers_too_soon(&self) -> bool {
        matches!(self.replies.clone().next_reply(), Ok(Some(reply)) if reply.code() < 400)
    }

    /// Every command has its reply. What came beyond them would be taken for the replies to the next transaction, and
    /// what they say of its recipients be wrong: such a connection is not gone on with.
    fn ready(&self) -> State {
        if self.replies.is_empty() {
            return State::Ready;
        }
        State::Closed(Ending::Lost(said_too_much()))
    }

    fn greeted(&self, reply: &Reply) -> State {
        let line = reply.lines().first().map_or("", String::as_str);
        let server = line.split_ascii_whitespace().next().unwrap_or_default();
        let mut own = std::iter::once(&self.settings.hostname).chain(&self.settings.own_names);
        if tells_hosts_apart(server) && own.any(|name| name.eq_ignore_ascii_case(server)) {
            let text = format!("mail loops back to myself: the server greets as {server}");
            return State::Closed(Ending::Loop(Status::new(554, EnhancedStatus::new(5, 4, 6), text)));
        }
        self.hello("EHLO", Awaited::Ehlo)
    }

    fn hello(&self, verb: &str, awaited: Awaited) -> State {
        State::Say(format!("{verb} {}\r\n", self.settings.hostname).into_bytes(), awaited)
    }

    fn wait_for(&mut self, awaited: Awaited, now: Instant) {
        let timeouts = &self.settings.timeouts;
        let patience = match awaited {
            Awaited::Greeting => timeouts.greeting,
            Awaited::Ehlo | Awaited::Helo | Awaited::StartTls => timeouts.hello,
            Awaited::Quit => timeouts.quit,
        };
        self.deadline = now + patience;
        self.state = State::Await(awaited);
    }

    /// Bytes from the server, in [`Step::Receive`] or, where they came early, while the content is being written.
    pub fn received(&mut self, bytes: &[u8]) {
        self.replies.push(bytes);
    }

    /// TLS is on: all that was said before counts no more (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.encrypted = true;
        self.replies = ReplyReader::default();
        self.capabilities = Capabilities::default();
        self.state = self.hello("EHLO", Awaited::Ehlo);
    }

    /// The content was written to its end.
    pub fn content_sent(&mut self, now: Instant) {
        if let State::Transaction(exchange) = &mut self.state {
            exchange.content_sent();
            self.deadline = now + self.settings.timeouts.final_dot;
        }
    }

    /// The content cannot be had or written to its end, through no fault of the server: the recipients get `status`.
    /// The connection must be closed, since the server waits for the rest.
    pub fn content_unavailable(&mut self, status: Status) {
        self.break_off(&Answer::NoContent(status.clone()), status);
    }

    fn break_off(&mut self, answer: &Answer, why: Status) {
        if let State::Transaction(exchange) = std::mem::replace(&mut self.state, State::Ready) {
            self.state = State::Over(exchange.ended_by(answer), Some(Ending::Lost(why)));
        }
    }

    /// Begins a transaction; right after [`Step::Ready`]. On a session that is over, all recipients are answered
    /// [`Answer::NextServer`].
    pub fn begin(&mut self, transaction: Transaction) {
        self.state = match std::mem::replace(&mut self.state, State::Ready) {
            State::Closed(ending) => {
                let answer = Answer::NextServer(ending.status());
                State::Over(vec![answer; transaction.envelope.recipients.len()], Some(ending))
            }
            State::Ready => {
                let reset = self.open_on_server;
                State::Transaction(Box::new(Exchange::new(transaction, &self.capabilities, reset)))
            }
            busy => busy,
        };
    }

    /// Says goodbye; right after [`Step::Ready`].
    pub fn quit(&mut self) {
        if matches!(self.state, State::Ready) {
            self.state = State::Say(b"QUIT\r\n".to_vec(), Awaited::Quit);
        }
    }

    /// The connection broke: reading or writing failed, or came to its end. `why` is for people.
    pub fn disconnected(&mut self, why: &str) {
        // A server may refuse a message while it is being written, and close.
        if let State::Transaction(exchange) = &mut self.state
            && exchange.is_sending()
            && let Ok(Some(reply)) = self.replies.next_reply()
            && reply.code() >= 400
        {
            if reply.code() == 421 {
                return self.end(Ending::Refused(reply.status()));
            }
            return self.break_off(&Answer::Refused(reply.status()), reply.status());
        }
        let status = unavailable(format!("lost the connection at {}: {why}", self.awaiting()));
        self.end(Ending::Lost(status));
    }

    fn end(&mut self, ending: Ending) {
        self.state = match std::mem::replace(&mut self.state, State::Ready) {
            State::Transaction(exchange) => {
                let answers = match &ending {
                    Ending::Lost(status) => exchange.lost(status.clone()),
                    Ending::Quit | Ending::Loop(_) | Ending::Refused(_) => {
                        exchange.ended_by(&Answer::NextServer(ending.status()))
                    }
                };
                State::Over(answers, Some(ending))
            }
            State::Await(Awaited::Quit) => State::Closed(Ending::Quit),
            State::Over(answers, _) => State::Over(answers, Some(ending)),
            State::Closed(first) => State::Closed(first),
            State::Say(..) | State::Await(_) | State::Handshake | State::Ready => State::Closed(ending),
        };
    }

    /// What the server is being waited for, for people.
    fn awaiting(&self) -> &'static str {
        match &self.state {
            State::Await(Awaited::Greeting) => "the greeting",
            State::Say(_, Awaited::Helo) | State::Await(Awaited::Helo) => "HELO",
            State::Say(_, Awaited::StartTls) | State::Await(Awaited::StartTls) | State::Handshake => {
                "STARTTLS"
            }
            State::Say(_, Awaited::Quit) | State::Await(Awaited::Quit) => "QUIT",
            State::Say(..) | State::Await(Awaited::Ehlo) => "EHLO",
            State::Transaction(exchange) => exchange.patience(&self.settings.timeouts).1,
            State::Ready | State::Over(..) | State::Closed(_) => "rest",
        }
    }
}

/// Whether a name belongs to one host alone. Any number of servers greet as `localhost`, or by a name without a domain:
/// one that does so as we do is not ourselves for that.
fn tells_hosts_apart(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.contains('.') && !name.eq_ignore_ascii_case("localhost.localdomain")
}
