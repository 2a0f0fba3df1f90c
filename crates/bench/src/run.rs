//! `posthorn-bench run`: starts the servers, takes them by turns, and reports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::case::{self, Amount, Case, Measured, Surroundings};
use crate::dovecot;
use crate::postfix::{self, Postfix};
use crate::posthorn::Posthorn;
use crate::report::{self, Report, Row};
use crate::say;
use crate::server::Server;
use crate::sink::{Manner, Sink};
use crate::trial::{self, Finding, Setting, Trial, Waiting};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measure Postfix, and Postfix with Dovecot, in the same run, too
    #[arg(long)]
    peers: bool,
    /// Only these cases
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Only these trials
    #[arg(long, value_delimiter = ',')]
    trials: Vec<Trial>,
    #[command(flatten)]
    waiting: Waiting,
    /// How often each case is run against each server, by turns
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Messages in a round of a throughput case
    #[arg(long, default_value_t = 5000)]
    messages: u64,
    /// Sessions at once
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Octets of a message
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Recipients of the one message that goes to many, at most 1000
    #[arg(long, default_value_t = MAILBOXES, value_parser = fanout)]
    fanout: usize,
    /// One connection for all messages of a session, not one for each message
    #[arg(long)]
    keep: bool,
    /// Send SMTP commands without waiting for answers
    #[arg(long)]
    pipelining: bool,
    /// The binary to measure
    #[arg(long, default_value = "target/release/posthorn")]
    posthorn: PathBuf,
    /// Where the servers keep their data: on a real disk, not in memory
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Where to write the figures as JSON
    #[arg(long, default_value = "target/bench/report.json")]
    json: PathBuf,
}

const MAILBOXES: usize = 1000;

fn fanout(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=MAILBOXES).contains(n)).ok_or(format!("1 to {MAILBOXES}"))
}

/// Measures all cases and trials, or those that are named, and reports.
pub(crate) async fn run(args: Args) -> Result<()> {
    std::fs::create_dir_all(&args.dir).with_context(|| format!("creating {}", args.dir.display()))?;
    let dir = args.dir.canonicalize()?;
    let around = Surroundings {
        mailboxes: (0..MAILBOXES).map(|n| format!("box{n}@example.test")).collect(),
        sink: Sink::start(Manner::Takes).await?,
    };
    let amount = Amount {
        messages: args.messages,
        sessions: args.sessions,
        size: args.size,
        keep: args.keep,
        pipelining: args.pipelining,
        fanout: args.fanout,
        doors: None,
    };
    let (cases, trials) = match (&args.cases[..], &args.trials[..]) {
        ([], []) => (&Case::ALL[..], &Trial::ALL[..]),
        named => named,
    };
    let rows = measure(&args, cases, &dir, &amount, &around).await?;
    if !rows.is_empty() {
        say(&format!("\n{}", report::table(&rows)))?;
    }
    let findings = try_out(&args, trials, &dir, &amount, &around).await?;
    write(&args, &rows, &findings)
}

async fn measure(
    args: &Args,
    cases: &[Case],
    dir: &Path,
    amount: &Amount,
    around: &Surroundings,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if cases.is_empty() {
        return Ok(rows);
    }
    let servers = servers(args, dir, around).await?;
    let held = match cases.contains(&Case::Accepted) {
        true => Some(Server::Posthorn(posthorn(args, dir, around, Vec::new(), true).await?)),
        false => None,
    };
    for server in servers.iter().chain(&held) {
        case::warm_up(server, around).await?;
    }
    for &case in cases {
        let mut rounds: Vec<Vec<Measured>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..args.rounds {
            for (server, rounds) in servers.iter().zip(&mut rounds) {
                if !server.has(case) {
                    continue;
                }
                let server =
                    held.as_ref().filter(|_| case == Case::Accepted && !server.is_peer()).unwrap_or(server);
                let measured = case::measure(case, server, amount, around).await;
                rounds.push(measured.with_context(|| format!("{} of {}", case::name(case), server.name()))?);
            }
        }
        for (server, rounds) in servers.iter().zip(&rounds) {
            rows.extend(Row::new(case, server.name(), rounds));
        }
        say(&format!("measured {}", case::name(case)))?;
    }
    stop((servers, held)).await?;
    Ok(rows)
}

async fn servers(args: &Args, dir: &Path, around: &Surroundings) -> Result<Vec<Server>> {
    let mut servers = vec![Server::Posthorn(posthorn(args, dir, around, Vec::new(), false).await?)];
    if args.peers {
        let routes = [("sink.test", around.sink.address())];
        for with_dovecot in [false, true] {
            let postfix = Postfix::start(dir, &around.mailboxes, &routes, with_dovecot).await?;
            servers.push(Server::Postfix(postfix));
        }
        say(&format!("Postfix' settings:\n{}\nDovecot's:\n{}", postfix::SETTINGS, dovecot::SETTINGS))?;
    }
    Ok(servers)
}

async fn try_out(
    args: &Args,
    trials: &[Trial],
    dir: &Path,
    amount: &Amount,
    around: &Surroundings,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for &trial in trials {
        let fresh = async || {
            let server = Server::Posthorn(posthorn(args, dir, around, trial::settings(trial), false).await?);
            case::warm_up(&server, around).await?;
            anyhow::Ok(server)
        };
        let server = fresh().await?;
        let empty = if trial::is_beside_an_empty_one(trial) { Some(fresh().await?) } else { None };
        let (waiting, rounds) = (args.waiting, args.rounds);
        let setting = Setting { amount, around, waiting, rounds, empty: empty.as_ref() };
        let found = trial::run(trial, &server, &setting).await.with_context(|| case::name(trial))?;
        for finding in &found {
            say(&finding.line())?;
        }
        findings.extend(found);
        stop((server, empty)).await?;
    }
    Ok(findings)
}

/// Stops servers on a thread of its own: they take their leave of our connections, which must answer meanwhile.
async fn stop<T: Send + 'static>(servers: T) -> Result<()> {
    Ok(tokio::task::spawn_blocking(move || drop(servers)).await?)
}

async fn posthorn(
    args: &Args,
    dir: &Path,
    around: &Surroundings,
    settings: Vec<String>,
    held: bool,
) -> Result<Posthorn> {
    let posthorn = Posthorn::start(&args.posthorn, dir, settings, held).await?;
    posthorn.create_accounts(&around.mailboxes).await?;
    posthorn.create_route("sink.test", around.sink.address()).await?;
    Ok(posthorn)
}

fn write(args: &Args, rows: &[Row], findings: &[Finding]) -> Result<()> {
    let mut settings = BTreeMap::from([
        ("sessions", args.sessions.to_string()),
        ("size", args.size.to_string()),
        ("messages", args.messages.to_string()),
        ("fanout", args.fanout.to_string()),
        ("keep", args.keep.to_string()),
        ("pipelining", args.pipelining.to_string()),
    ]);
    if args.peers {
        settings.insert("postfix", postfix::SETTINGS.to_owned());
        settings.insert("dovecot", dovecot::SETTINGS.to_owned());
    }
    let at = OffsetDateTime::now_utc().format(&Rfc3339)?;
    let report = Report { at, machine: machine(), settings, rows, findings };
    std::fs::write(&args.json, report.json()?).with_context(|| format!("writing {}", args.json.display()))?;
    say(&format!("\nwritten to {}", args.json.display()))
}

/// The processors and memory of this machine.
fn machine() -> String {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let (cpu, memory) =
        (after(&read("/proc/cpuinfo"), "model name"), after(&read("/proc/meminfo"), "MemTotal"));
    format!("{processors} x {cpu}, {memory}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}
