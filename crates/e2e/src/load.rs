//! Clients that hand in a known set of messages until told to stop, and remember what they were answered.

mod program;
mod smtp;
mod to;

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use posthorn_api::directory::v1::directory_service_client::DirectoryServiceClient;
use posthorn_api::directory::v1::{Account, CreateAccountRequest};
use posthorn_testkit::wait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Code;

pub use to::To;

use crate::{Api, letter};

/// In a mailbox here, so that a notice would be seen.
pub const SENDER: &str = "bob@example.test";

/// The arguments of `posthorn ctl` that make the domain, accounts, alias and list that messages go to; [`open_mailboxes`]
/// makes the rest. There must be a server for `remote.test`, too, which refuses `nobody@remote.test`.
pub const DIRECTORY: [&[&str]; 5] = [
    &["example"],
    &["account", "create", "carl@example.test"],
    &["account", "create", "dora@example.test"],
    &["alias", "create", "sales@example.test", "alice@example.test"],
    &["list", "create", "team@example.test", "carl@example.test", "dora@example.test", "eve@remote.test"],
];

/// Makes the accounts of [`To::Many`] through a router.
pub async fn open_mailboxes(router: String) -> Result<()> {
    let mut directory = DirectoryServiceClient::connect(router).await?;
    for address in To::Many.mailboxes() {
        let account = Account { address: address.clone(), ..Default::default() };
        let request = CreateAccountRequest { account: Some(account), ..Default::default() };
        // On a busy machine an answer may come too late, to a call that has done its work.
        wait::until(&format!("the account {address}"), Duration::from_secs(30), async || {
            match directory.create_account(request.clone()).await {
                Err(status) if status.code() != Code::AlreadyExists => None,
                Ok(_) | Err(_) => Some(()),
            }
        })
        .await;
    }
    Ok(())
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
    /// By gRPC, not by SMTP.
    pub by_program: bool,
    /// What became of it.
    pub answer: Answer,
    /// When the answer came.
    pub at: SystemTime,
}

impl Sent {
    /// What was handed in.
    pub fn content(&self) -> Vec<u8> {
        content(&self.subject, self.large)
    }
}

/// What the client knows of a message that it handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 250 after the dot, or OK: Posthorn answers for it, under this id.
    Accepted(String),
    /// 421, at whatever point.
    Leaving,
    /// Another 4yz, or a status that says that it was not kept: it is not to come.
    NotNow(String),
    /// 5yz, which nothing here must lead to.
    Refused(String),
    /// The connection broke before the end of the content: it is not to come.
    Broken(String),
    /// No answer to the end of the content: kept or not. It is not sent again, so that what came of it can be told: all
    /// have it, or nobody. (A program asks again under its idempotency key; it is left with this only at the end.)
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
            let by_program = client >= clients;
            let (stopped, sent) = (stopped.clone(), sender.clone());
            let run = Client { number: client, by_program, pace, stopped, sent };
            if !by_program {
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
    by_program: bool,
    pace: Pace,
    stopped: watch::Receiver<bool>,
    sent: watch::Sender<Vec<Sent>>,
}

/// A message to hand in.
struct Message {
    subject: String,
    to: To,
    recipients: Vec<String>,
    large: bool,
}

impl Client {
    /// The next message; `None` when it is time to stop.
    async fn next(&mut self, number: usize) -> Option<Message> {
        if number > 0 {
            let _ = tokio::time::timeout(self.pace.pause, self.stopped.wait_for(|stop| *stop)).await;
        }
        let to = To::TURNS[(number + 7 * self.number) % To::TURNS.len()];
        let may_be_large = self.pace.large > 0 && !matches!(to, To::Nobody | To::Many);
        let large = may_be_large && (number + self.number).is_multiple_of(self.pace.large);
        let subject = format!("load {} {number}", self.number);
        let recipients = to.recipients(number);
        (!*self.stopped.borrow()).then_some(Message { subject, to, recipients, large })
    }

    fn note(&self, message: Message, answer: Answer) {
        let Message { subject, to, large, .. } = message;
        let (by_program, at) = (self.by_program, SystemTime::now());
        self.sent.send_modify(|all| all.push(Sent { subject, to, large, by_program, answer, at }));
    }
}

impl Message {
    fn content(&self) -> Vec<u8> {
        content(&self.subject, self.large)
    }
}

/// No two lines of any two messages are the same: what is cut, swapped or mixed is seen. The large ones go to the queue
/// as a stream of chunks.
fn content(subject: &str, large: bool) -> Vec<u8> {
    let lines = if large { 7000 } else { 4 };
    let line = |number| format!("Line {number} of {subject}, which was sent while things broke.\n");
    letter(subject, &(0..lines).map(line).collect::<String>())
}
