//! Clients that hand in messages until told to stop, and remember what they were answered.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use posthorn_e2e::letter;
use posthorn_testkit::smtp_client::{Reply, SmtpClient, dot_stuffed};
use posthorn_testkit::wait;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) const LOCAL: &str = "alice@example.test";
pub(crate) const REMOTE: &str = "dave@remote.test";
/// In a mailbox here, so that a notice would be seen.
pub(crate) const SENDER: &str = "bob@example.test";

/// A message with its answer.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Its subject; no other has it.
    pub(crate) subject: String,
    pub(crate) local: bool,
    pub(crate) remote: bool,
    pub(crate) answer: Answer,
}

/// What the client knows of a message that it handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 250 after the dot: Posthorn answers for it.
    Accepted,
    /// 4yz to the envelope, or the connection broke before the dot.
    NotNow,
    /// 5yz, which a crash must never lead to.
    Refused(String),
    /// 4yz after the dot, or the connection broke there: kept or not, it is to be sent again.
    Unknown,
}

/// Clients at work.
pub(crate) struct Load {
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
    sent: watch::Receiver<Vec<Sent>>,
}

impl Load {
    /// Starts so many clients, each on a connection of its own.
    pub(crate) fn start(server: SocketAddr, clients: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (sender, sent) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            tasks.spawn(run(server, client, stopped.clone(), sender.clone()));
        }
        Self { clients: tasks, stop, sent }
    }

    /// How many messages were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.sent.borrow().iter().filter(|sent| sent.answer == Answer::Accepted).count()
    }

    /// Waits until so many more are accepted.
    pub(crate) async fn accepts(&self, more: usize) {
        let until = self.accepted() + more;
        wait::until(&format!("{until} accepted messages"), Duration::from_secs(40), async || {
            (self.accepted() >= until).then_some(())
        })
        .await;
    }

    /// Lets each client end the message it is at; all that were handed in.
    pub(crate) async fn stop(mut self) -> Result<Vec<Sent>> {
        self.stop.send(true).context("no client is left")?;
        while let Some(ended) = self.clients.join_next().await {
            ended?;
        }
        Ok(self.sent.borrow().clone())
    }
}

async fn run(
    server: SocketAddr,
    client: usize,
    stopped: watch::Receiver<bool>,
    sender: watch::Sender<Vec<Sent>>,
) {
    let mut session = None;
    for number in 0.. {
        if *stopped.borrow() {
            return;
        }
        let subject = format!("load {client} {number}");
        // To a mailbox here, to a server elsewhere, to both, by turns.
        let (local, remote) = (number % 3 != 0, number % 3 != 1);
        let answer = hand_in(&mut session, server, &subject, local, remote).await;
        if answer != Answer::Accepted {
            session = None;
            // A client that was put off comes back a little later.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sender.send_modify(|all| all.push(Sent { subject, local, remote, answer }));
    }
}

async fn hand_in(
    session: &mut Option<SmtpClient>,
    server: SocketAddr,
    subject: &str,
    local: bool,
    remote: bool,
) -> Answer {
    if let Err(answer) = envelope(session, server, local, remote).await {
        return answer;
    }
    let client = session.as_mut().expect("the envelope went over it");
    let content = dot_stuffed(&letter(subject, "under load"));
    match async { client.send(&content).await.and(client.reply().await) }.await {
        Ok(reply) if reply.code == 250 => Answer::Accepted,
        Ok(reply) if reply.code >= 500 => Answer::Refused(format!("{reply:?}")),
        // 451: the queue may have died between keeping it and saying so.
        Ok(_) | Err(_) => Answer::Unknown,
    }
}

/// Up to the server's 354.
async fn envelope(
    session: &mut Option<SmtpClient>,
    server: SocketAddr,
    local: bool,
    remote: bool,
) -> Result<(), Answer> {
    let mut commands = Vec::new();
    if session.is_none() {
        let (client, greeting) = SmtpClient::connect(server).await.map_err(|_| Answer::NotNow)?;
        expect(&greeting, 220)?;
        *session = Some(client);
        commands.push(("EHLO client.test".to_owned(), 250));
    }
    commands.push((format!("MAIL FROM:<{SENDER}>"), 250));
    let recipients = [(local, LOCAL), (remote, REMOTE)];
    commands.extend(recipients.iter().filter(|(to, _)| *to).map(|(_, a)| (format!("RCPT TO:<{a}>"), 250)));
    commands.push(("DATA".to_owned(), 354));
    let client = session.as_mut().expect("it was opened above");
    for (command, code) in commands {
        expect(&client.command(&command).await.map_err(|_| Answer::NotNow)?, code)?;
    }
    Ok(())
}

fn expect(reply: &Reply, code: u16) -> Result<(), Answer> {
    match reply.code {
        found if found == code => Ok(()),
        500.. => Err(Answer::Refused(format!("{reply:?}"))),
        _ => Err(Answer::NotNow),
    }
}
