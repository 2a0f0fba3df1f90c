//! Posthorn alone under strain: with much waiting, with a destination that hangs, with a second process of a service.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use tokio::net::TcpStream;

use crate::case::{self, Amount, Surroundings};
use crate::posthorn::Posthorn;
use crate::proc;
use crate::server::Server;
use crate::sink::{Manner, Sink};
use crate::source::{Door, Load};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trial {
    /// Many messages wait: throughput beside an empty queue, memory
    Depth,
    /// A destination hangs while messages wait for it: throughput to the others
    Hanging,
    /// Two processes of a service
    Replicas,
}

impl Trial {
    pub(crate) const ALL: [Self; 3] = [Self::Depth, Self::Hanging, Self::Replicas];
}

/// How many messages wait.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Waiting {
    /// Messages that wait in the trial of depth
    #[arg(long, default_value_t = 100_000)]
    pub(crate) depth: u64,
    /// Messages that wait for a destination that hangs
    #[arg(long, default_value_t = 50_000)]
    pub(crate) hanging: u64,
    /// Octets of a message that waits
    #[arg(long, default_value_t = 1024)]
    pub(crate) waiting_size: usize,
}

/// A figure, and what is wanted of it.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    trial: Trial,
    what: String,
    value: f64,
    unit: &'static str,
    wanted: &'static str,
}

impl Finding {
    /// As a line for people.
    pub(crate) fn line(&self) -> String {
        let wanted =
            if self.wanted.is_empty() { String::new() } else { format!("   wanted {}", self.wanted) };
        format!(
            "{:<9} {:<70} {:>8.2} {:<6}{wanted}",
            case::name(self.trial),
            self.what,
            self.value,
            self.unit
        )
    }
}

/// What a trial is made of.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) amount: &'a Amount,
    pub(crate) around: &'a Surroundings,
    pub(crate) waiting: Waiting,
    /// How often throughput is measured, each time; beside an empty one [`ROUNDS_BESIDE`] times as often.
    pub(crate) rounds: usize,
    /// Another Posthorn, with its own stores, in which nothing waits: what throughput is compared with, by turns. A
    /// machine's speed changes by more in a minute than what is looked for.
    pub(crate) empty: Option<&'a Server>,
}

/// The connections that are open while many messages wait.
const CONNECTIONS: usize = 200;

/// A round is good to a tenth, and a twentieth is looked for: so many for each that is asked for.
const ROUNDS_BESIDE: usize = 5;

const SERVICES: [(&str, &str); 4] = [
    ("ingress", "ingress"),
    ("router", "router"),
    ("local-delivery", "local_delivery"),
    ("remote-relay", "relay"),
];

/// The settings that a trial's Posthorn has.
pub(crate) fn settings(trial: Trial) -> Vec<String> {
    match trial {
        Trial::Depth | Trial::Hanging => Vec::new(),
        // So few connections a process that two transfer more than one.
        Trial::Replicas => vec!["relay.connections=4".into(), "queue.destination.concurrency=20".into()],
    }
}

/// Whether it compares a Posthorn with an empty one.
pub(crate) fn is_beside_an_empty_one(trial: Trial) -> bool {
    matches!(trial, Trial::Depth | Trial::Hanging)
}

/// Runs a trial on a Posthorn that is fresh.
pub(crate) async fn run(trial: Trial, server: &Server, setting: &Setting<'_>) -> Result<Vec<Finding>> {
    let Server::Posthorn(posthorn) = server else { bail!("trials are for Posthorn") };
    let found = match trial {
        Trial::Depth => depth(server, posthorn, setting).await?,
        Trial::Hanging => hanging(server, posthorn, setting).await?,
        Trial::Replicas => replicas(server, posthorn, setting).await?,
    };
    let finding = |(what, value, unit, wanted)| Finding { trial, what, value, unit, wanted };
    Ok(found.into_iter().map(finding).collect())
}

type Found = Vec<(String, f64, &'static str, &'static str)>;

async fn depth(server: &Server, posthorn: &Posthorn, setting: &Setting<'_>) -> Result<Found> {
    let Waiting { depth, waiting_size, .. } = setting.waiting;
    let parked = Sink::start(Manner::Takes).await?;
    posthorn.create_route("parked.test", parked.address()).await?;
    posthorn.suspend(&format!("route:{}", parked.address())).await?;

    let redis = posthorn.redis_memory().await?;
    posthorn.fill("somebody@parked.test", depth, waiting_size).await?;
    let redis = posthorn.redis_memory().await?.saturating_sub(redis) as f64 / depth as f64;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(TcpStream::connect(posthorn.smtp()).await?);
    }
    let throughput = beside(server, setting, &format!("with {depth} waiting"), "0.8x (1x)").await?;
    let now = services(&server.memory()?);
    let peak = services(&proc::peak(posthorn.root())?);
    drop(connections);
    ensure!(parked.taken() == 0, "a suspended destination was sent to");
    let five = format!("five services, {CONNECTIONS} connections, {depth} waiting");
    let sizes = [
        (five.clone(), now, "MB", "400 MB"),
        (format!("{five}: the sum of peaks"), peak, "MB", "400 MB"),
        ("Redis, an item that waits".into(), redis, "bytes", "400"),
    ];
    Ok(throughput.into_iter().chain(sizes).collect())
}

/// The part of the five services in what a tree of processes uses, in MB.
fn services(memory: &proc::Memory) -> f64 {
    let ours = SERVICES.iter().map(|(service, _)| *service).chain(["queue"]);
    ours.filter_map(|service| memory.get(service)).sum::<u64>() as f64 / 1e6
}

async fn hanging(server: &Server, posthorn: &Posthorn, setting: &Setting<'_>) -> Result<Found> {
    let Waiting { hanging, waiting_size, .. } = setting.waiting;
    let hangs = Sink::start(Manner::Hangs).await?;
    posthorn.create_route("hanging.test", hangs.address()).await?;
    posthorn.fill("somebody@hanging.test", hanging, waiting_size).await?;
    let found = beside(server, setting, &format!("with {hanging} waiting for what hangs"), "0.95x").await?;
    ensure!(hangs.taken() == 0, "what hangs has taken a message");
    Ok(found)
}

/// A second process of each service in turn, beside one. Every message is counted: one that is lost or doubled fails
/// the trial.
async fn replicas(server: &Server, posthorn: &Posthorn, setting: &Setting<'_>) -> Result<Found> {
    let slow = Sink::start(Manner::Slow(Duration::from_millis(20))).await?;
    posthorn.create_route("slow.test", slow.address()).await?;
    let mut found: Found = Vec::new();
    for (service, section) in SERVICES {
        let one = rates(server, setting).await?;
        let is_relay = service == "remote-relay";
        let one_slow = if is_relay { slow_rate(server, &slow, setting).await? } else { 0.0 };
        let replica = posthorn.replica(service, section).await?;
        let mut amount = setting.amount.clone();
        amount.doors = (service == "ingress").then(|| vec![posthorn.smtp(), replica.smtp]);
        let two = rates(server, &Setting { amount: &amount, ..*setting }).await?;
        found.push((
            format!("two {service}: into a mailbox, one {}/s", one.0.round()),
            two.0 / one.0,
            "x",
            "",
        ));
        found.push((format!("two {service}: relayed, one {}/s", one.1.round()), two.1 / one.1, "x", ""));
        if is_relay {
            let two = slow_rate(server, &slow, setting).await?;
            let what = format!("two {service}, bound by 4 connections each: one {}/s", one_slow.round());
            found.push((what, two / one_slow, "x", "more than 1x"));
        }
    }
    Ok(found)
}

/// Throughput of a Posthorn in which much waits, beside one in which nothing does.
async fn beside(server: &Server, setting: &Setting<'_>, with: &str, wanted: &'static str) -> Result<Found> {
    let Some(empty) = setting.empty else { bail!("there is nothing to compare with") };
    let (mut without, mut much) = (Took::default(), Took::default());
    for round in 0..setting.rounds * ROUNDS_BESIDE {
        // Who comes first changes, too.
        if round % 2 == 0 {
            without.measure(empty, setting).await?;
            much.measure(server, setting).await?;
        } else {
            much.measure(server, setting).await?;
            without.measure(empty, setting).await?;
        }
    }
    let (without, with_much) = (without.rates(setting.amount), much.rates(setting.amount));
    let found = |to, without: f64, with_much| {
        (format!("{to}, {}/s; {with}, beside that", without.round()), with_much / without, "x", wanted)
    };
    Ok(vec![found("into a mailbox", without.0, with_much.0), found("relayed", without.1, with_much.1)])
}

/// Messages a second into one mailbox, and to the sink.
async fn rates(server: &Server, setting: &Setting<'_>) -> Result<(f64, f64)> {
    let mut took = Took::default();
    for _ in 0..setting.rounds {
        took.measure(server, setting).await?;
    }
    Ok(took.rates(setting.amount))
}

/// The time that messages took, of all rounds.
#[derive(Debug, Default)]
struct Took {
    rounds: u64,
    mailbox: Duration,
    relayed: Duration,
}

impl Took {
    async fn measure(&mut self, server: &Server, setting: &Setting<'_>) -> Result<()> {
        let load = load(server, setting);
        let local = Load { mailboxes: setting.around.mailboxes[..1].to_vec(), ..load.clone() };
        let remote = Load { mailboxes: vec!["somebody@sink.test".to_owned()], ..load };
        server.settle().await?;
        self.mailbox += case::deliver(server, local).await?.took;
        server.settle().await?;
        self.relayed += case::relay(&setting.around.sink, remote).await?.took;
        self.rounds += 1;
        Ok(())
    }

    /// Messages a second into the mailbox, and relayed.
    fn rates(&self, amount: &Amount) -> (f64, f64) {
        let all = (amount.messages * self.rounds) as f64;
        (all / self.mailbox.as_secs_f64(), all / self.relayed.as_secs_f64())
    }
}

/// Messages a second to a sink that is slow: as many as can be transferred at once.
async fn slow_rate(server: &Server, slow: &Sink, setting: &Setting<'_>) -> Result<f64> {
    server.settle().await?;
    let load = Load {
        messages: setting.amount.messages / 4,
        mailboxes: vec!["somebody@slow.test".to_owned()],
        ..load(server, setting)
    };
    let took = case::relay(slow, load.clone()).await?.took;
    Ok(load.messages as f64 / took.as_secs_f64())
}

fn load(server: &Server, setting: &Setting<'_>) -> Load {
    let amount = setting.amount;
    let door = amount.doors.clone().map_or_else(|| server.open_door(), Door::Smtp);
    Load::new(door, amount.sessions, amount.messages, amount.size)
}
