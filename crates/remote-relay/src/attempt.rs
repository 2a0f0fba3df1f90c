//! One attempt for one message: what became of each recipient, server after server. Pure.

use posthorn_mail::{Outcome, RemoteServer, Status, Verdict};
use posthorn_smtp::client::Answer;

/// The recipients of an attempt; known by their places.
#[derive(Debug)]
pub(crate) struct Attempt {
    outcomes: Vec<Option<Outcome>>,
    /// Why the last server could not take it; a temporary reason before a permanent one.
    unavailable: Option<(Status, RemoteServer)>,
    /// Why the last transaction did not come to its end.
    trouble: Option<Status>,
    /// A server refused the message and would have gone on with others.
    talked: bool,
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
        Self { outcomes: vec![None; recipients], unavailable: None, trouble: None, talked: false }
    }

    /// The places of those who have no outcome yet.
    pub(crate) fn open(&self) -> Vec<usize> {
        let open = self.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none());
        open.map(|(at, _)| at).collect()
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
                Answer::Refused(status) => refused(status, false),
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
            self.outcomes[*place] = Some(Outcome { verdict, remote: Some(remote.clone()) });
        }
        match self.outcomes.iter().any(Option::is_none) {
            false => Then::Done,
            true if next_server => Then::NextServer,
            true => Then::SameServer,
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

    /// All who are open have this end.
    pub(crate) fn end_open(&mut self, verdict: &Verdict, remote: Option<&RemoteServer>) {
        for open in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *open = Some(Outcome { verdict: verdict.clone(), remote: remote.cloned() });
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
        self.outcomes.into_iter().flatten().collect()
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
        let mut attempt = Attempt::new(4);
        let delivered = || Answer::Delivered { status: status(250, "ok"), dsn_passed_on: false };
        let answers = vec![
            Answer::Refused(status(550, "no")),
            Answer::Refused(status(450, "greylisted")),
            Answer::NextServer(status(421, "away")),
            Answer::NextServer(status(421, "away")),
        ];
        assert_eq!(attempt.answered(&[0, 1, 2, 3], answers, &server("a"), false), Then::NextServer);
        assert_eq!(attempt.open(), [2, 3]);
        let answers = vec![delivered(), Answer::NextTransaction];
        assert_eq!(attempt.answered(&[2, 3], answers, &server("b"), true), Then::SameServer);
        let answers = vec![Answer::Uncertain(status(451, "lost"))];
        assert_eq!(attempt.answered(&[3], answers, &server("b"), true), Then::Done);
        assert_eq!(
            shown(attempt.finish(&status(451, "none"))),
            [
                "failed 550 5.0.0 no at a",
                "deferred 450 4.0.0 greylisted at a",
                "delivered 250 2.0.0 ok at b",
                "uncertain 451 4.0.0 lost at b",
            ]
        );
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
