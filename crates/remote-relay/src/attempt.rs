//! One attempt for one message: what became of each recipient, server after server. Pure.

use posthorn_mail::{Outcome, RemoteServer, Status, Verdict};
use posthorn_smtp::client::Answer;

/// The recipients of an attempt; known by their places.
#[derive(Debug)]
pub(crate) struct Attempt {
    recipients: Vec<Recipient>,
    /// Why the last server could not take it; a temporary reason before a permanent one.
    unavailable: Option<(Status, RemoteServer)>,
    /// Why the last transaction did not come to its end.
    trouble: Option<Status>,
    /// A server refused the message and would have gone on with others.
    talked: bool,
}

/// How far a recipient has come.
#[derive(Debug, Clone)]
enum Recipient {
    /// No server has said anything of it.
    Open,
    /// A server does not take it now (4yz). RFC 5321 §5.1: the next host may; this is the outcome if none does.
    PutOff(Outcome),
    Ended(Outcome),
}

/// What to do after a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing is open any more.
    Done,
    /// Another transaction on the same connection.
    SameServer,
    /// Another server.
    NextServer,
}

impl Attempt {
    /// All are open.
    pub(crate) fn new(recipients: usize) -> Self {
        let recipients = vec![Recipient::Open; recipients];
        Self { recipients, unavailable: None, trouble: None, talked: false }
    }

    /// The places of those that a host is still to be asked to take.
    pub(crate) fn open_for(&self, host: &str) -> Vec<usize> {
        let recipients = self.recipients.iter().enumerate();
        recipients.filter(|(_, recipient)| recipient.is_open_for(host)).map(|(at, _)| at).collect()
    }

    /// Whether a server has put someone off who would be delivered to by another one.
    pub(crate) fn has_put_off(&self) -> bool {
        self.recipients.iter().any(|recipient| matches!(recipient, Recipient::PutOff(_)))
    }

    /// Takes the answers of a transaction for the recipients at `places`.
    ///
    /// Where the session goes on, what a server could not take says nothing about other messages to it.
    pub(crate) fn answered(
        &mut self,
        places: &[usize],
        answers: Vec<Answer>,
        remote: &RemoteServer,
        session_goes_on: bool,
    ) -> Then {
        let mut next_server = false;
        self.trouble = None;
        self.talked |= session_goes_on;
        for (place, answer) in places.iter().zip(answers) {
            let verdict = match answer {
                Answer::Delivered { status, dsn_passed_on } => Verdict::Delivered { status, dsn_passed_on },
                Answer::NoContent(status) => refused(status, false),
                Answer::Refused(status) if status.is_permanent() => Verdict::Failed(status),
                Answer::Refused(status) => {
                    let outcome = Outcome { verdict: refused(status, false), remote: Some(remote.clone()) };
                    self.recipients[*place] = Recipient::PutOff(outcome);
                    continue;
                }
                Answer::Uncertain(status) => {
                    self.trouble = Some(status.clone());
                    Verdict::Uncertain(status)
                }
                Answer::NextTransaction => continue,
                Answer::NextServer(status) => {
                    next_server = true;
                    self.trouble = Some(status.clone());
                    self.unavailable(status, remote.clone());
                    continue;
                }
            };
            self.recipients[*place] = Recipient::Ended(Outcome { verdict, remote: Some(remote.clone()) });
        }
        if self.recipients.iter().all(|recipient| matches!(recipient, Recipient::Ended(_))) {
            Then::Done
        } else if next_server || self.open_for(&remote.host).is_empty() {
            Then::NextServer
        } else {
            Then::SameServer
        }
    }

    /// A server could take nothing.
    pub(crate) fn unavailable(&mut self, status: Status, remote: RemoteServer) {
        let keep = status.is_permanent() && self.unavailable.as_ref().is_some_and(|(s, _)| s.is_transient());
        if !keep {
            self.unavailable = Some((status, remote));
        }
    }

    /// Why the last transaction did not come to its end, if it did not.
    pub(crate) fn trouble(&self) -> Option<&Status> {
        self.trouble.as_ref()
    }

    /// All who are open have this end. Who was put off keeps the words of the server that did it.
    pub(crate) fn end_open(&mut self, verdict: &Verdict, remote: Option<&RemoteServer>) {
        for recipient in &mut self.recipients {
            if matches!(recipient, Recipient::Open) {
                *recipient = Recipient::Ended(Outcome { verdict: verdict.clone(), remote: remote.cloned() });
            }
        }
    }

    /// No server is left: those still open are put off, or have failed where every server refused for good. `none` is
    /// what holds where no server was tried.
    pub(crate) fn finish(mut self, none: &Status) -> Vec<Outcome> {
        let (status, remote) = match self.unavailable.take() {
            Some((status, remote)) => (status, Some(remote)),
            None => (none.clone(), None),
        };
        self.end_open(&refused(status, !self.talked), remote.as_ref());
        let outcome = |recipient| match recipient {
            Recipient::Open => None,
            Recipient::PutOff(outcome) | Recipient::Ended(outcome) => Some(outcome),
        };
        self.recipients.into_iter().filter_map(outcome).collect()
    }
}

impl Recipient {
    /// What a host has put off it is not asked again in the same attempt, under another address neither.
    fn is_open_for(&self, host: &str) -> bool {
        match self {
            Self::Open => true,
            Self::PutOff(Outcome { remote, .. }) => remote.as_ref().is_none_or(|remote| remote.host != host),
            Self::Ended(_) => false,
        }
    }
}

/// 5yz is for good, all else for now.
pub(crate) fn refused(status: Status, destination_unavailable: bool) -> Verdict {
    if status.is_permanent() {
        Verdict::Failed(status)
    } else {
        Verdict::Deferred { status, destination_unavailable }
    }
}

#[cfg(test)]
mod tests {
    use posthorn_mail::EnhancedStatus;

    use super::*;

    fn status(code: u16, text: &str) -> Status {
        Status::new(code, EnhancedStatus::of_reply(code), text)
    }

    fn server(host: &str) -> RemoteServer {
        RemoteServer { host: host.to_owned(), ..RemoteServer::default() }
    }

    fn delivered() -> Answer {
        Answer::Delivered { status: status(250, "ok"), dsn_passed_on: false }
    }

    fn shown(outcomes: Vec<Outcome>) -> Vec<String> {
        let show = |outcome: Outcome| {
            let (word, status) = match outcome.verdict {
                Verdict::Delivered { status, .. } => ("delivered", status.to_string()),
                Verdict::Deferred { status, destination_unavailable: true } => {
                    ("unavailable", status.to_string())
                }
                Verdict::Deferred { status, .. } => ("deferred", status.to_string()),
                Verdict::Failed(status) => ("failed", status.to_string()),
                Verdict::Uncertain(status) => ("uncertain", status.to_string()),
                Verdict::Reroute(reason) => ("reroute", reason),
            };
            format!("{word} {status} at {}", outcome.remote.map_or_else(|| "none".to_owned(), |r| r.host))
        };
        outcomes.into_iter().map(show).collect()
    }

    #[test]
    fn refusals_are_outcomes_and_unavailable_servers_are_not() {
        let mut attempt = Attempt::new(3);
        let answers = vec![
            Answer::Refused(status(550, "no")),
            Answer::NextServer(status(421, "away")),
            Answer::NextServer(status(421, "away")),
        ];
        assert_eq!(attempt.answered(&[0, 1, 2], answers, &server("a"), false), Then::NextServer);
        assert_eq!(attempt.open_for("a"), [1, 2]);
        let answers = vec![delivered(), Answer::NextTransaction];
        assert_eq!(attempt.answered(&[1, 2], answers, &server("b"), true), Then::SameServer);
        let answers = vec![Answer::Uncertain(status(451, "lost"))];
        assert_eq!(attempt.answered(&[2], answers, &server("b"), true), Then::Done);
        assert_eq!(
            shown(attempt.finish(&status(451, "none"))),
            ["failed 550 5.0.0 no at a", "delivered 250 2.0.0 ok at b", "uncertain 451 4.0.0 lost at b"]
        );
    }

    /// RFC 5321 §5.1: whom one host puts off another may take.
    #[test]
    fn whom_a_host_puts_off_goes_on_to_the_next_with_the_others_done() {
        let mut attempt = Attempt::new(5);
        let put_off = |text| Answer::Refused(status(450, text));
        let answers =
            vec![put_off("grey"), put_off("full"), put_off("busy"), Answer::NextTransaction, delivered()];
        assert_eq!(attempt.answered(&[0, 1, 2, 3, 4], answers, &server("a"), true), Then::SameServer);
        // The remainder goes first, on the same connection, and those that were put off are not asked for again.
        assert_eq!(attempt.open_for("a"), [3]);
        assert_eq!(attempt.answered(&[3], vec![delivered()], &server("a"), true), Then::NextServer);
        assert_eq!((attempt.open_for("a"), attempt.open_for("b")), (vec![], vec![0, 1, 2]));
        let answers = vec![delivered(), Answer::Refused(status(550, "no")), put_off("grey too")];
        assert_eq!(attempt.answered(&[0, 1, 2], answers, &server("b"), true), Then::NextServer);
        // The last host cannot be reached: the words that were said of the recipient count.
        attempt.unavailable(status(451, "cannot connect"), server("c"));
        assert_eq!(
            shown(attempt.finish(&status(451, "none"))),
            [
                "delivered 250 2.0.0 ok at b",
                "failed 550 5.0.0 no at b",
                "deferred 450 4.0.0 grey too at b",
                "delivered 250 2.0.0 ok at a",
                "delivered 250 2.0.0 ok at a",
            ]
        );
    }

    #[test]
    fn content_that_cannot_be_had_is_no_servers_fault() {
        let mut attempt = Attempt::new(1);
        let answers = vec![Answer::NoContent(status(451, "gone"))];
        assert_eq!(attempt.answered(&[0], answers, &server("a"), false), Then::Done);
        assert_eq!(shown(attempt.finish(&status(451, "none"))), ["deferred 451 4.0.0 gone at a"]);
    }

    /// R8: a sender that a server puts off holds up no other's messages to it.
    #[test]
    fn a_server_that_puts_one_message_off_is_not_away() {
        for (session_goes_on, wanted) in [(true, "deferred"), (false, "unavailable")] {
            let mut attempt = Attempt::new(1);
            let answers = vec![Answer::NextServer(status(450, "too fast"))];
            let then = attempt.answered(&[0], answers, &server("a"), session_goes_on);
            assert_eq!(then, Then::NextServer);
            let wanted = format!("{wanted} 450 4.0.0 too fast at a");
            assert_eq!(shown(attempt.finish(&status(451, "none"))), [wanted]);
        }
    }

    #[test]
    fn one_server_that_may_come_back_keeps_the_message_waiting() {
        for (codes, wanted) in [
            (&[554, 421][..], "unavailable 421 4.0.0 at 1"),
            (&[421, 554], "unavailable 421 4.0.0 at 0"),
            (&[554, 521], "failed 521 5.0.0 at 1"),
            (&[], "unavailable 451 4.0.0 at none"),
        ] {
            let mut attempt = Attempt::new(1);
            for (at, code) in codes.iter().enumerate() {
                attempt.unavailable(status(*code, ""), server(&at.to_string()));
            }
            let got = shown(attempt.finish(&status(451, "")));
            assert_eq!(got[0].replace("  ", " "), wanted);
        }
    }
}
