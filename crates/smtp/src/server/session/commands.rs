//! What each command does (RFC 5321 §4.1.1, §4.3.2).

use bytes::Buf as _;
use posthorn_mail::{Body, EnhancedStatus, Status};

use super::{Client, Intake, Session, State, Step};
use crate::reply;
use crate::server::command::{self, Verb, syntax};
use crate::server::content::{Form, Reader};
use crate::server::lines::{self, Line};
use crate::server::transaction::Transaction;

const OK: EnhancedStatus = EnhancedStatus::new(2, 0, 0);

impl Session {
    /// Does what a line says. The state that it leaves is in `self.state`.
    pub(super) fn command(&mut self, state: State, line: Line) -> Option<Step> {
        let line = match line {
            Line::Text(line) => line,
            Line::Malformed => return self.refuse(state, &malformed()),
            Line::TooLong => return self.refuse(state, &too_long()),
        };
        let Some((verb, argument)) = Verb::parse(&line) else {
            return self.refuse(state, &Status::new(500, EnhancedStatus::new(5, 5, 1), "Unknown command"));
        };
        if line.len() + 2 > self.settings.command_line + verb.extra_length() {
            return self.refuse(state, &too_long());
        }
        match verb {
            Verb::Helo | Verb::Ehlo => self.hello(state, argument, verb == Verb::Ehlo),
            Verb::Mail => self.mail(state, argument),
            Verb::Rcpt => self.rcpt(state, argument),
            Verb::Data => self.data(state, argument),
            Verb::Bdat => self.bdat(state, argument),
            Verb::StartTls => self.start_tls(state, argument),
            Verb::Rset if argument.is_empty() => self.reset(),
            Verb::Quit if argument.is_empty() => self.quit(),
            Verb::Rset | Verb::Quit => self.refuse(state, &syntax("This command has no argument")),
            Verb::Noop => self.inform(state, 250, OK, "Ok"),
            Verb::Help => self.inform(state, 214, OK, "See https://www.rfc-editor.org/rfc/rfc5321"),
            Verb::Vrfy if argument.is_empty() => self.refuse(state, &syntax("Syntax: VRFY address")),
            // RFC 5321 §7.3: who asks here is told nothing that RCPT would not tell.
            Verb::Vrfy => {
                self.inform(state, 252, OK, "Cannot verify, but will take mail and try to deliver it")
            }
            Verb::Expn => {
                self.refuse(state, &Status::new(502, EnhancedStatus::new(5, 5, 1), "EXPN is not offered"))
            }
            Verb::Http => {
                self.close_with(EnhancedStatus::new(4, 7, 0), "This is SMTP");
                None
            }
        }
    }

    /// Replies with a refusal and leaves all as it was.
    fn refuse(&mut self, state: State, status: &Status) -> Option<Step> {
        self.state = state;
        self.answer(status);
        None
    }

    fn inform(&mut self, state: State, code: u16, enhanced: EnhancedStatus, text: &str) -> Option<Step> {
        self.state = state;
        self.say(code, enhanced, text);
        None
    }

    /// RFC 5321 §4.1.4: a second EHLO resets as RSET does.
    fn hello(&mut self, state: State, argument: &str, extended: bool) -> Option<Step> {
        let name = match command::helo(argument) {
            Ok(name) => name,
            Err(refusal) => return self.refuse(state, &refusal),
        };
        self.client = Some(Client { name, extended });
        self.state = State::Ready;
        if extended {
            self.list_extensions();
        } else {
            reply::write(&mut self.output, 250, None, &self.settings.hostname);
        }
        None
    }

    fn list_extensions(&mut self) {
        let size = format!("SIZE {}", self.settings.message_size);
        let starttls = (self.settings.starttls && !self.secured).then_some("STARTTLS");
        let lines = [self.settings.hostname.as_str(), "PIPELINING", &size, "8BITMIME", "SMTPUTF8"]
            .into_iter()
            .chain(starttls)
            .chain(["ENHANCEDSTATUSCODES", "DSN", "CHUNKING", "BINARYMIME", "HELP"]);
        reply::write_lines(&mut self.output, 250, lines);
    }

    fn mail(&mut self, state: State, argument: &str) -> Option<Step> {
        if self.client.is_none() {
            return self.refuse(state, &out_of_order("Send EHLO first"));
        }
        if !matches!(state, State::Ready) {
            return self.refuse(state, &out_of_order("A transaction is under way"));
        }
        if self.unknown {
            // RFC 6409 §4.3; the reply is RFC 4954 §6's.
            let refusal = Status::new(530, EnhancedStatus::new(5, 7, 0), "Authentication required");
            return self.refuse(state, &refusal);
        }
        if self.tally.transactions >= self.settings.transactions {
            self.close_with(EnhancedStatus::new(4, 7, 0), "Too many transactions");
            return None;
        }
        match Transaction::mail(argument, &self.settings) {
            Err(refusal) => self.refuse(state, &refusal),
            Ok(transaction) => {
                self.tally.transactions += 1;
                self.inform(State::Envelope(transaction), 250, EnhancedStatus::new(2, 1, 0), "Ok")
            }
        }
    }

    fn rcpt(&mut self, state: State, argument: &str) -> Option<Step> {
        let State::Envelope(mut transaction) = state else {
            let refusal = not_yet(&state);
            return self.refuse(state, &refusal);
        };
        transaction.tried = true;
        if transaction.recipients() >= self.settings.recipients {
            // RFC 5321 §4.5.3.1.10: the client goes on with those that were taken, and then with the rest. That it
            // named them all at once is no error of its: the limit of commands bounds what it may.
            self.tell(&Status::new(452, EnhancedStatus::new(4, 5, 3), "Too many recipients"));
            self.state = State::Envelope(transaction);
            return None;
        }
        let mut asked = match transaction.rcpt(argument, &self.settings) {
            Ok(recipient) => vec![recipient],
            Err(refusal) => return self.refuse(State::Envelope(transaction), &refusal),
        };
        // What came in the same group is asked about in the same call; a RCPT that is not plainly right waits for
        // its turn, so that the replies keep their order.
        while transaction.recipients() + asked.len() < self.settings.recipients
            && self.tally.commands < self.settings.commands
        {
            let limit = self.settings.command_line + Verb::Rcpt.extra_length();
            let Some((line, length)) = lines::peek(&self.input, "RCPT ", limit) else { break };
            let Some((Verb::Rcpt, argument)) = Verb::parse(line) else { break };
            let Ok(recipient) = transaction.rcpt(argument, &self.settings) else { break };
            asked.push(recipient);
            self.input.advance(length);
            self.tally.commands += 1;
        }
        self.state = State::Asking(transaction, asked);
        None
    }

    fn data(&mut self, state: State, argument: &str) -> Option<Step> {
        if !argument.is_empty() {
            return self.refuse(state, &syntax("This command has no argument"));
        }
        match state {
            // RFC 3030 §3: binary content has no dots to end it.
            State::Envelope(transaction) if transaction.body() == Body::BinaryMime => {
                self.refuse(State::Envelope(transaction), &out_of_order("BODY=BINARYMIME needs BDAT"))
            }
            State::Envelope(transaction) if transaction.recipients() > 0 => {
                reply::write_plain(&mut self.output, "354 End data with <CR><LF>.<CR><LF>");
                let reader = Reader::new(Form::Dotted, self.settings.message_size, self.settings.text_line);
                self.begin(transaction, Intake { reader, left: None, last: true })
            }
            state => {
                let refusal = not_yet(&state);
                self.refuse(state, &refusal)
            }
        }
    }

    fn bdat(&mut self, state: State, argument: &str) -> Option<Step> {
        let (size, last) = match command::chunk(argument) {
            Ok(chunk) => chunk,
            // How much content follows cannot be known, and it must not be taken for commands.
            Err(refusal) => {
                self.refuse(state, &refusal);
                self.ending = true;
                return None;
            }
        };
        match state {
            State::Envelope(transaction) if transaction.recipients() > 0 => {
                let form = match transaction.body() {
                    Body::BinaryMime => Form::Binary,
                    Body::SevenBit | Body::EightBitMime => Form::Lines,
                };
                let reader = Reader::new(form, self.settings.message_size, self.settings.text_line);
                let mut intake = Intake { reader, left: None, last };
                intake.expect_chunk(size, last, self.settings.message_size);
                self.begin(transaction, intake)
            }
            State::Chunks(mut intake) => {
                intake.expect_chunk(size, last, self.settings.message_size);
                self.state = State::Content(intake);
                None
            }
            // The octets come all the same: RFC 3030 §2 has them sent without waiting for the reply.
            state => {
                let refusal = not_yet(&state);
                self.state = State::Skipping { left: size, refusal, back: Box::new(state) };
                None
            }
        }
    }

    fn begin(&mut self, transaction: Transaction, intake: Intake) -> Option<Step> {
        self.state = State::Content(intake);
        self.open = true;
        Some(Step::Begin(transaction.into_envelope()))
    }

    fn start_tls(&mut self, state: State, argument: &str) -> Option<Step> {
        if !self.settings.starttls {
            let refusal = Status::new(502, EnhancedStatus::new(5, 5, 1), "STARTTLS is not offered");
            return self.refuse(state, &refusal);
        }
        if self.secured {
            return self.refuse(state, &out_of_order("TLS is started already"));
        }
        if !argument.is_empty() {
            return self.refuse(state, &syntax("This command has no argument"));
        }
        // What follows in the clear may be another's: it must not be taken for what the client says under TLS
        // (command injection), and a client that does it is not one to go on with.
        if !self.input.is_empty() {
            self.refuse(state, &out_of_order("Nothing may follow STARTTLS before the handshake"));
            self.ending = true;
            return None;
        }
        self.inform(State::Securing, 220, OK, "Ready to start TLS")
    }

    fn reset(&mut self) -> Option<Step> {
        self.inform(State::Ready, 250, OK, "Ok")
    }

    fn quit(&mut self) -> Option<Step> {
        self.say(221, OK, "Bye");
        self.ending = true;
        None
    }
}

fn malformed() -> Status {
    Status::new(500, EnhancedStatus::new(5, 5, 2), "A command is a line of text that ends in CRLF")
}

fn too_long() -> Status {
    Status::new(500, EnhancedStatus::new(5, 5, 2), "Line too long")
}

fn out_of_order(text: &str) -> Status {
    Status::new(503, EnhancedStatus::new(5, 5, 1), text)
}

/// Why neither recipients (without MAIL) nor content (without recipients) can come in this state.
fn not_yet(state: &State) -> Status {
    match state {
        State::Envelope(transaction) if transaction.tried => {
            Status::new(554, EnhancedStatus::new(5, 5, 1), "No valid recipients")
        }
        State::Envelope(_) => out_of_order("Send RCPT first"),
        State::Chunks(_) => out_of_order("The message has begun with BDAT"),
        _ => out_of_order("Send MAIL first"),
    }
}
