//! The cases: what is sent, and when it is done.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;

use crate::proc::{self, Cpu, Memory};
use crate::server::{Arrival, Server, until};
use crate::sink::Sink;
use crate::source::{self, Door, Load, Sent};

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Case {
    /// Into one mailbox
    Mailbox,
    /// Into a thousand mailboxes
    Mailboxes,
    /// Accepted, with delivery held
    Accepted,
    /// Relayed to another server
    Relayed,
    /// Into one mailbox, handed in by gRPC (Posthorn alone)
    Submit,
    /// One message alone on an idle system
    Idle,
    /// A hundred messages a second into one mailbox
    Steady,
    /// Messages of 1 MiB into one mailbox
    Large,
    /// One message to a thousand mailboxes
    Fanout,
}

impl Case {
    pub(crate) const ALL: [Self; 9] = [
        Self::Mailbox,
        Self::Mailboxes,
        Self::Accepted,
        Self::Relayed,
        Self::Submit,
        Self::Idle,
        Self::Steady,
        Self::Large,
        Self::Fanout,
    ];
}

/// How much is sent.
#[derive(Clone, Debug)]
pub(crate) struct Amount {
    pub(crate) messages: u64,
    pub(crate) sessions: usize,
    pub(crate) size: usize,
    pub(crate) keep: bool,
    pub(crate) pipelining: bool,
    /// Recipients of the one message that goes to many.
    pub(crate) fanout: usize,
    /// Other doors than the server's own.
    pub(crate) doors: Option<Vec<SocketAddr>>,
}

/// What is around the servers.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Mailboxes that every server has.
    pub(crate) mailboxes: Vec<String>,
    /// Where mail for `somebody@sink.test` goes.
    pub(crate) sink: Sink,
}

/// The figures of one run.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// From the first connect until the last message is where it belongs.
    pub(crate) seconds: f64,
    /// Until nothing is left to do, by process.
    pub(crate) cpu: Cpu,
    /// Of source, sink and watching.
    pub(crate) own_cpu: f64,
    /// Microseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) memory: Memory,
}

/// What came of the messages of a run.
#[derive(Debug)]
pub(crate) struct Done {
    messages: u64,
    bytes: u64,
    pub(crate) took: Duration,
    latency: Histogram<u64>,
}

impl Done {
    /// All that was sent, done now.
    fn now(load: &Load, sent: Sent) -> Self {
        Self::at(load, sent, Instant::now())
    }

    fn at(load: &Load, sent: Sent, end: Instant) -> Self {
        let bytes = load.messages * load.size as u64;
        Self { messages: load.messages, bytes, took: end - sent.began, latency: sent.latency }
    }
}

/// The name of a case or trial as on the command line.
pub(crate) fn name(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Runs a case against a server.
pub(crate) async fn measure(
    case: Case,
    server: &Server,
    amount: &Amount,
    around: &Surroundings,
) -> Result<Measured> {
    // Counting many mailboxes costs Posthorn a call each: that is no part of what is measured.
    let (many, recipients) = match case {
        Case::Mailboxes => (&around.mailboxes[..], 1),
        Case::Fanout => (&around.mailboxes[..amount.fanout], amount.fanout as u64),
        _ => (&[][..], 0),
    };
    let before = server.delivered(many).await?;
    server.settle().await?;
    let (cpu, own_cpu) = (server.cpu()?, proc::own_cpu()?);
    let done = run(case, server, amount, around).await?;
    if case != Case::Accepted {
        server.finished().await?;
    }
    let cpu = proc::between(&cpu, &server.cpu()?);
    let own_cpu = proc::own_cpu()? - own_cpu;
    let memory = server.memory()?;
    if case == Case::Accepted {
        server.discard().await?;
    }
    let Done { messages, bytes, took, latency } = done;
    let (found, want) = (server.delivered(many).await? - before, messages * recipients);
    ensure!(found == want, "{found} messages are in the mailboxes, not {want}");
    Ok(Measured { messages, bytes, seconds: took.as_secs_f64(), cpu, own_cpu, latency, memory })
}

async fn run(case: Case, server: &Server, amount: &Amount, around: &Surroundings) -> Result<Done> {
    let Amount { messages, sessions, size, keep, pipelining, .. } = *amount;
    let mut load = Load::new(server.open_door(), sessions, messages, size);
    (load.keep, load.pipelining) = (keep, pipelining);
    load.mailboxes = around.mailboxes[..1].to_vec();
    match case {
        Case::Mailbox => deliver(server, load).await,
        Case::Mailboxes => {
            load.mailboxes.clone_from(&around.mailboxes);
            let sent = source::send(load.clone()).await?;
            server.finished().await?;
            Ok(Done::now(&load, sent))
        }
        Case::Accepted => {
            load.door = Door::Smtp(vec![server.held_door()]);
            let sent = source::send(load.clone()).await?;
            let end = sent.ended;
            Ok(Done::at(&load, sent, end))
        }
        Case::Relayed => {
            load.mailboxes = vec!["somebody@sink.test".to_owned()];
            let want = around.sink.taken() + messages;
            let done = relay(&around.sink, load).await?;
            server.finished().await?;
            let taken = around.sink.taken();
            ensure!(taken == want, "the sink has taken {taken} messages, not {want}");
            Ok(done)
        }
        Case::Submit => {
            let Server::Posthorn(posthorn) = server else { anyhow::bail!("only Posthorn has Submit") };
            load.door = Door::Grpc(posthorn.submission());
            deliver(server, load).await
        }
        Case::Idle => {
            (load.messages, load.rate) = (60, Some(8.0));
            follow(server, load).await
        }
        Case::Steady => {
            (load.messages, load.rate) = (1000, Some(100.0));
            follow(server, load).await
        }
        Case::Large => {
            (load.messages, load.size) = (messages.div_ceil(20), 1 << 20);
            deliver(server, load).await
        }
        Case::Fanout => {
            load.mailboxes = around.mailboxes[..amount.fanout].to_vec();
            fan_out(server, load, 10).await
        }
    }
}

/// Until the last message is in the one mailbox, which is asked how many it has.
pub(crate) async fn deliver(server: &Server, load: Load) -> Result<Done> {
    let mailbox = load.mailboxes.clone();
    let want = server.delivered(&mailbox).await? + load.messages;
    let sent = source::send(load.clone()).await?;
    until("the last message", async || Ok(server.delivered(&mailbox).await? >= want)).await?;
    let done = Done::now(&load, sent);
    let found = server.delivered(&mailbox).await?;
    ensure!(found == want, "{found} messages are in the mailbox, not {want}");
    Ok(done)
}

/// Until the last message is in the sink.
pub(crate) async fn relay(sink: &Sink, load: Load) -> Result<Done> {
    let mut sink = sink.clone();
    let want = sink.taken() + load.messages;
    let sent = source::send(load.clone()).await?;
    sink.wait_for(want).await?;
    Ok(Done::now(&load, sent))
}

/// Sees each message arrive; the latency is from connect to mailbox.
async fn follow(server: &Server, load: Load) -> Result<Done> {
    let mailbox = load.mailboxes.clone();
    let mut arrivals = server.watch(&mailbox[0]).await?;
    let sent = source::send(load.clone()).await?;
    let starts: HashMap<u64, Instant> = sent.starts.iter().copied().collect();
    let mut done = Done::now(&load, sent);
    done.latency.reset();
    while done.latency.len() < load.messages {
        let (number, at) = next(&mut arrivals).await?;
        if let Some(start) = starts.get(&number) {
            done.latency.saturating_record(at.saturating_duration_since(*start).as_micros() as u64);
        }
    }
    Ok(done)
}

/// The next message in a mailbox that is watched.
async fn next(arrivals: &mut mpsc::UnboundedReceiver<Arrival>) -> Result<Arrival> {
    let arrival = tokio::time::timeout(Duration::from_secs(30), arrivals.recv()).await;
    arrival.context("a message does not arrive")?.context("the watch ended")
}

/// One message to every mailbox, which makes the mailboxes and wakes the server up.
pub(crate) async fn warm_up(server: &Server, around: &Surroundings) -> Result<()> {
    let mut load = Load::new(server.open_door(), 1, 1, 4096);
    load.mailboxes.clone_from(&around.mailboxes);
    source::send(to_all(load)).await?;
    server.finished().await
}

/// One message after the other, each to all mailboxes; done when nothing is owed any more. Nobody asks for that before
/// one of the mailboxes has it: the server has no more to do than to deliver.
async fn fan_out(server: &Server, load: Load, times: u64) -> Result<Done> {
    let load = to_all(load);
    let mut arrivals = server.watch(load.mailboxes.last().context("there is a mailbox")?).await?;
    let (mut took, mut latency) = (Duration::ZERO, source::histogram());
    for _ in 0..times {
        let sent = source::send(load.clone()).await?;
        next(&mut arrivals).await?;
        server.finished().await?;
        let done = Done::now(&load, sent);
        took += done.took;
        latency.saturating_record(done.took.as_micros() as u64);
    }
    Ok(Done { messages: times, bytes: times * load.size as u64, took, latency })
}

/// One message that goes to all mailboxes.
fn to_all(load: Load) -> Load {
    let recipients = load.mailboxes.len();
    Load { messages: 1, sessions: 1, recipients, pipelining: true, ..load }
}
