//! Clients that hand in a known set of messages until told to stop, and remember what they were answered.

mod program;
mod smtp;

use std::time::Duration;

use anyhow::{Context as _, Result};
use posthorn_testkit::wait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Api, letter};

/// In a mailbox here, so that a notice would be seen.
pub const SENDER: &str = "bob@example.test";

/// The arguments of `posthorn ctl` that make the domain, the accounts and the list that messages go to. There must be
/// a server for `remote.test`, too, which refuses `nobody@remote.test`.
pub const DIRECTORY: [&[&str]; 4] = [
    &["example"],
    &["account", "create", "carl@example.test"],
    &["account", "create", "dora@example.test"],
    &["list", "create", "team@example.test", "carl@example.test", "dora@example.test", "eve@remote.test"],
];

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// A mailbox here.
    Local,
    /// A server elsewhere.
    Remote,
    /// Both.
    Mixed,
    /// A list: two mailboxes here, one address elsewhere.
    List,
    /// Nobody: the server elsewhere refuses it for good.
    Nobody,
}

impl To {
    /// Of twenty messages the first few and so on; a client goes through them by turns.
    const TURNS: [Self; 20] = {
        use To::{List, Local, Mixed, Nobody, Remote};
        [
            Local, Remote, Mixed, Local, Remote, Mixed, List, Local, Remote, Local, Mixed, Local, Remote,
            Local, List, Remote, Mixed, Nobody, Local, Remote,
        ]
    };

    fn recipients(self) -> &'static [&'static str] {
        match self {
            Self::Local => &["alice@example.test"],
            Self::Remote => &["dave@remote.test"],
            Self::Mixed => &["alice@example.test", "dave@remote.test"],
            Self::List => &["team@example.test"],
            Self::Nobody => &["nobody@remote.test"],
        }
    }

    /// The mailboxes that must have it, once each.
    pub fn mailboxes(self) -> &'static [&'static str] {
        match self {
            Self::Local | Self::Mixed => &["alice@example.test"],
            Self::List => &["carl@example.test", "dora@example.test"],
            Self::Remote | Self::Nobody => &[],
        }
    }

    /// The addresses elsewhere that must have got it.
    pub fn elsewhere(self) -> &'static [&'static str] {
        match self {
            Self::Remote | Self::Mixed => &["dave@remote.test"],
            Self::List => &["eve@remote.test"],
            Self::Local | Self::Nobody => &[],
        }
    }
}

/// A message with its answer.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its subject; no other has it.
    pub subject: String,
    /// Where it goes.
    pub to: To,
    /// More than 256 KiB, or less.
    pub large: bool,
    /// What became of it.
    pub answer: Answer,
    /// When the answer came.
    pub at: Instant,
}

/// What the client knows of a message that it handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 250 after the dot, or OK: Posthorn answers for it, under this id.
    Accepted(String),
    /// 421, at whatever point.
    Leaving,
    /// Another 4yz (or UNAVAILABLE where it was surely not kept), or no connection: it is not to come.
    NotNow(String),
    /// 5yz, which nothing here must lead to.
    Refused(String),
    /// The connection broke before the end of the content.
    Broken(String),
    /// No answer to the end of the content: kept or not, it is to be sent again.
    Unknown,
}

impl Answer {
    /// Accepted.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }

    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Leaving => "421",
            Self::NotNow(_) => "refused for now",
            Self::Refused(_) => "refused for good",
            Self::Broken(_) => "cut before its end",
            Self::Unknown => "not known",
        }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
    sent: watch::Receiver<Vec<Sent>>,
}

/// How a client goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two messages of a client.
    pub pause: Duration,
    /// One of so many is large; 0: none.
    pub large: usize,
}

impl Load {
    /// Starts so many SMTP clients, each on a connection of its own, and so many programs that submit by gRPC.
    pub fn start(api: &Api, clients: usize, programs: usize, pace: Pace) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (sender, sent) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        for client in 0..clients + programs {
            let run = Client { number: client, pace, stopped: stopped.clone(), sent: sender.clone() };
            if client < clients {
                tasks.spawn(smtp::run(run, api.smtp));
            } else {
                tasks.spawn(program::run(run, api.ingress.clone()));
            }
        }
        Self { clients: tasks, stop, sent }
    }

    /// How many messages were accepted so far.
    pub fn accepted(&self) -> usize {
        self.sent.borrow().iter().filter(|sent| sent.answer.is_accepted()).count()
    }

    /// What was handed in so far.
    pub fn so_far(&self) -> Vec<Sent> {
        self.sent.borrow().clone()
    }

    /// Waits until so many more are accepted.
    pub async fn accepts(&self, more: usize, limit: Duration) {
        let until = self.accepted() + more;
        wait::until(&format!("{until} accepted messages"), limit, async || {
            (self.accepted() >= until).then_some(())
        })
        .await;
    }

    /// Lets each client end the message it is at; all that were handed in.
    pub async fn stop(mut self) -> Result<Vec<Sent>> {
        self.stop.send(true).context("no client is left")?;
        while let Some(ended) = self.clients.join_next().await {
            ended?;
        }
        Ok(self.sent.borrow().clone())
    }
}

/// What each client knows.
struct Client {
    number: usize,
    pace: Pace,
    stopped: watch::Receiver<bool>,
    sent: watch::Sender<Vec<Sent>>,
}

/// A message to hand in.
struct Message {
    subject: String,
    to: To,
    large: bool,
}

impl Client {
    /// The next message; `None` when it is time to stop.
    async fn next(&mut self, number: usize) -> Option<Message> {
        if number > 0 {
            let _ = tokio::time::timeout(self.pace.pause, self.stopped.wait_for(|stop| *stop)).await;
        }
        let to = To::TURNS[(number + 7 * self.number) % To::TURNS.len()];
        let large =
            self.pace.large > 0 && (number + self.number).is_multiple_of(self.pace.large) && to != To::Nobody;
        let subject = format!("load {} {number}", self.number);
        (!*self.stopped.borrow()).then_some(Message { subject, to, large })
    }

    fn note(&self, message: Message, answer: Answer) {
        let Message { subject, to, large } = message;
        self.sent.send_modify(|all| all.push(Sent { subject, to, large, answer, at: Instant::now() }));
    }
}

impl Message {
    fn content(&self) -> Vec<u8> {
        let line = "Under load, line after line, so that it goes to the queue as a stream of chunks.\n";
        let body = if self.large { line.repeat(5000) } else { line.to_owned() };
        letter(&self.subject, &body)
    }
}
