//! One mail transaction: from MAIL to the reply to the final dot.

use std::collections::VecDeque;
use std::time::Duration;

use posthorn_mail::{EnhancedStatus, Status};

use super::transaction::no_smtputf8;
use super::{Answer, Capabilities, Framing, Reply, Timeouts, Transaction, command};

/// How many commands go out before their replies are read: so few that neither side's buffers fill up while both
/// write (RFC 2920 §3.1).
const BURST: usize = 50;

/// What the session is to do next for the transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Send(Vec<u8>),
    Await,
    Content(Framing),
    Done(Vec<Answer>),
}

/// A reply that no command of the transaction can have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfPlace;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Recipient {
    Open,
    /// RCPT was accepted; the rest decides.
    Accepted,
    Ended(Answer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// MAIL, RCPT and DATA are under way.
    Envelope,
    /// The content is being written.
    Content,
    /// The content was written, its reply is awaited.
    Sent,
    /// 354 came though no recipient was accepted: the final dot alone is to be sent (RFC 2920 §3.1).
    Empty,
    /// It was sent; what is said to it means nothing.
    Emptied,
}

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Exchange {
    transaction: Transaction,
    offered: Capabilities,
    utf8: bool,
    pending: VecDeque<Command>,
    awaited: VecDeque<Command>,
    recipients: Vec<Recipient>,
    mail_open: bool,
    phase: Phase,
}

impl Exchange {
    /// Begins; recipients that what is `offered` does not suffice for have their answer at once. `reset`: an earlier
    /// transaction was left open.
    pub(super) fn new(transaction: Transaction, offered: &Capabilities, reset: bool) -> Self {
        let recipients = fitting(&transaction, offered);
        let named = || transaction.envelope.recipients.iter().zip(&recipients);
        let open = recipients.iter().enumerate().filter(|(_, r)| **r == Recipient::Open);

        let mut pending = VecDeque::from_iter(reset.then_some(Command::Reset));
        pending.push_back(Command::Mail);
        pending.extend(open.map(|(at, _)| Command::Rcpt(at)));
        if framing(offered) == Framing::Data {
            pending.push_back(Command::Data);
        }
        Self {
            utf8: transaction.needs_utf8()
                || named().any(|(r, state)| *state == Recipient::Open && !r.address.is_ascii()),
            offered: offered.clone(),
            pending,
            awaited: VecDeque::new(),
            recipients,
            mail_open: reset,
            phase: Phase::Envelope,
            transaction,
        }
    }

    /// What to do now.
    pub(super) fn next(&mut self) -> Next {
        match self.phase {
            Phase::Envelope if !self.awaited.is_empty() => Next::Await,
            Phase::Envelope if self.has_ended() => Next::Done(self.take_answers()),
            Phase::Envelope if self.pending.is_empty() => {
                // BDAT: all recipients have their replies, and one at least was accepted.
                self.phase = Phase::Content;
                Next::Content(Framing::Bdat)
            }
            Phase::Envelope => Next::Send(self.next_burst()),
            Phase::Content => Next::Content(framing(&self.offered)),
            Phase::Empty => {
                self.phase = Phase::Emptied;
                Next::Send(b".\r\n".to_vec())
            }
            Phase::Sent | Phase::Emptied => Next::Await,
        }
    }

    fn next_burst(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let burst = if self.offered.pipelining { BURST } else { 1 };
        for command in self.pending.drain(..burst.min(self.pending.len())) {
            match command {
                Command::Reset => bytes.extend_from_slice(b"RSET\r\n"),
                Command::Mail => {
                    let Transaction { envelope, size, .. } = &self.transaction;
                    bytes.extend(command::mail(envelope, *size, self.utf8, &self.offered).into_bytes());
                }
                Command::Rcpt(at) => {
                    let recipient = &self.transaction.envelope.recipients[at];
                    bytes.extend(command::rcpt(recipient, self.offered.dsn).into_bytes());
                }
                Command::Data => bytes.extend_from_slice(b"DATA\r\n"),
            }
            self.awaited.push_back(command);
        }
        bytes
    }

    /// How long to wait for the reply that is awaited now, and what to call it.
    pub(super) fn patience(&self, timeouts: &Timeouts) -> (Duration, &'static str) {
        match (self.phase, self.awaited.front()) {
            (Phase::Envelope | Phase::Empty, Some(Command::Mail)) => (timeouts.mail, "MAIL"),
            (Phase::Envelope | Phase::Empty, Some(Command::Rcpt(_))) => (timeouts.rcpt, "RCPT"),
            (Phase::Envelope | Phase::Empty, Some(Command::Data)) => (timeouts.data, "DATA"),
            (Phase::Envelope | Phase::Empty, Some(Command::Reset) | None) => (timeouts.hello, "RSET"),
            (Phase::Content, _) => (timeouts.block, "the message, before its end"),
            (Phase::Sent | Phase::Emptied, _) => (timeouts.final_dot, "the end of the message"),
        }
    }

    /// Takes the reply to what is awaited first. 421 never comes here.
    pub(super) fn replied(&mut self, reply: &Reply) -> Result<(), OutOfPlace> {
        match self.phase {
            Phase::Envelope => {
                let command = self.awaited.pop_front().ok_or(OutOfPlace)?;
                self.command_replied(command, reply)
            }
            Phase::Content | Phase::Sent => self.content_replied(reply),
            Phase::Empty => Err(OutOfPlace),
            Phase::Emptied => {
                self.mail_open = false;
                self.phase = Phase::Envelope;
                Ok(())
            }
        }
    }

    fn command_replied(&mut self, command: Command, reply: &Reply) -> Result<(), OutOfPlace> {
        let (class, status) = (reply.code() / 100, reply.status());
        match (command, class) {
            (Command::Reset, 2) => self.mail_open = false,
            (Command::Mail, 2) => self.mail_open = true,
            (Command::Mail, 4 | 5) => self.mail_refused(status),
            (Command::Rcpt(at), _) if self.recipients[at] != Recipient::Open => {}
            (Command::Rcpt(at), 2) => self.recipients[at] = Recipient::Accepted,
            (Command::Rcpt(at), 4 | 5) => {
                let full = self.any_accepted() && is_too_many(reply.code(), status.enhanced());
                let answer = if full { Answer::NextTransaction } else { Answer::Refused(status) };
                self.recipients[at] = Recipient::Ended(answer);
            }
            (Command::Data, 3) if self.any_accepted() => self.phase = Phase::Content,
            (Command::Data, 3) => self.phase = Phase::Empty,
            (Command::Data, 4 | 5) => self.end_open(&Answer::Refused(status)),
            _ => return Err(OutOfPlace),
        }
        Ok(())
    }

    /// 5yz is about the sender or the message; 4yz is about the server (as Postfix has it).
    fn mail_refused(&mut self, status: Status) {
        let permanent = status.is_permanent();
        self.end_open(&if permanent { Answer::Refused(status) } else { Answer::NextServer(status) });
        self.mail_open = false;
        // What was not sent yet need not be.
        self.pending.clear();
    }

    /// The reply to the whole message; one that comes while it is still being written can only be a refusal.
    fn content_replied(&mut self, reply: &Reply) -> Result<(), OutOfPlace> {
        let status = reply.status();
        let answer = match (self.phase, reply.code() / 100) {
            (Phase::Sent, 2) => Answer::Delivered { status, dsn_passed_on: self.offered.dsn },
            (_, 4 | 5) => Answer::Refused(status),
            _ => return Err(OutOfPlace),
        };
        // RFC 3030 §2: after a chunk that was refused, only RSET brings the server into a known state.
        self.mail_open = framing(&self.offered) == Framing::Bdat && !reply.is_positive();
        self.phase = Phase::Envelope;
        self.end_open(&answer);
        Ok(())
    }

    /// Whether the content is being written.
    pub(super) fn is_sending(&self) -> bool {
        self.phase == Phase::Content
    }

    /// The content was written to its end.
    pub(super) fn content_sent(&mut self) {
        self.phase = Phase::Sent;
    }

    /// The connection was lost, or the server fell silent: the answers of all.
    pub(super) fn lost(self, status: Status) -> Vec<Answer> {
        let sent = self.phase == Phase::Sent;
        self.ended_by(&if sent { Answer::Uncertain(status) } else { Answer::NextServer(status) })
    }

    /// The answers of all, this one for those that have none yet.
    pub(super) fn ended_by(mut self, answer: &Answer) -> Vec<Answer> {
        self.end_open(answer);
        self.take_answers()
    }

    /// Whether MAIL was accepted and nothing ended the transaction.
    pub(super) fn leaves_open(&self) -> bool {
        self.mail_open
    }

    fn any_accepted(&self) -> bool {
        self.recipients.contains(&Recipient::Accepted)
    }

    fn has_ended(&self) -> bool {
        self.recipients.iter().all(|r| matches!(r, Recipient::Ended(_)))
    }

    fn end_open(&mut self, answer: &Answer) {
        for recipient in self.recipients.iter_mut().filter(|r| !matches!(r, Recipient::Ended(_))) {
            *recipient = Recipient::Ended(answer.clone());
        }
    }

    fn take_answers(&mut self) -> Vec<Answer> {
        let ended = std::mem::take(&mut self.recipients).into_iter().filter_map(|r| match r {
            Recipient::Ended(answer) => Some(answer),
            Recipient::Open | Recipient::Accepted => None,
        });
        ended.collect()
    }
}

fn framing(offered: &Capabilities) -> Framing {
    if offered.chunking { Framing::Bdat } else { Framing::Data }
}

/// The recipients, those refused already whom the server could not take the message for.
fn fitting(transaction: &Transaction, offered: &Capabilities) -> Vec<Recipient> {
    let recipients = &transaction.envelope.recipients;
    if let Some(status) = transaction.unfit(offered) {
        return vec![Recipient::Ended(Answer::Refused(status)); recipients.len()];
    }
    let state = |recipient: &posthorn_mail::Recipient| {
        if recipient.address.is_ascii() || offered.smtputf8 {
            Recipient::Open
        } else {
            Recipient::Ended(Answer::Refused(no_smtputf8()))
        }
    };
    recipients.iter().map(state).collect()
}

/// RFC 5321 §4.5.3.1.10: 452, or 552 of old servers; an enhanced code that names another reason is believed.
fn is_too_many(code: u16, enhanced: EnhancedStatus) -> bool {
    let too_many = EnhancedStatus::new(4, 5, 3);
    let (unsaid, storage) = (EnhancedStatus::new(4, 0, 0), EnhancedStatus::new(4, 3, 1));
    match (code, enhanced.with_class(4)) {
        (452, enhanced) => [too_many, unsaid, storage].contains(&enhanced),
        (552, enhanced) => [too_many, unsaid].contains(&enhanced),
        (_, enhanced) => enhanced == too_many,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_recipients_is_told_from_other_reasons() {
        for (code, enhanced, wanted) in [
            (452, "4.0.0", true),
            (452, "4.5.3", true),
            (452, "4.3.1", true),
            (452, "4.2.2", false),
            (552, "5.0.0", true),
            (552, "5.5.3", true),
            (552, "5.2.2", false),
            (450, "4.5.3", true),
            (450, "4.2.1", false),
            (550, "5.0.0", false),
        ] {
            assert_eq!(is_too_many(code, enhanced.parse().unwrap()), wanted, "{code} {enhanced}");
        }
    }
}
