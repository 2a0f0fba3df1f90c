//! `posthorn-bench run`: starts the servers, takes them by turns, and reports.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::case::{self, Amount, Case, Measured, Surroundings};
use crate::postfix::{self, Postfix};
use crate::posthorn::Posthorn;
use crate::report::{self, Report, Row};
use crate::say;
use crate::server::Server;
use crate::sink::{Manner, Sink};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measure Postfix in the same run, too
    #[arg(long)]
    peers: bool,
    /// Only these cases
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
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

/// Measures all cases and reports.
pub(crate) async fn run(args: Args) -> Result<()> {
    std::fs::create_dir_all(&args.dir).with_context(|| format!("creating {}", args.dir.display()))?;
    let dir = args.dir.canonicalize()?;
    let cases = if args.cases.is_empty() { Case::ALL.to_vec() } else { args.cases.clone() };
    let around = Surroundings {
        mailboxes: (0..MAILBOXES).map(|n| format!("box{n}@example.test")).collect(),
        sink: Sink::start(Manner::Takes).await?,
    };
    let mut servers = vec![Server::Posthorn(posthorn(&args, &dir, &around, false).await?)];
    let held = match cases.contains(&Case::Accepted) {
        true => Some(Server::Posthorn(posthorn(&args, &dir, &around, true).await?)),
        false => None,
    };
    if args.peers {
        let routes = [("sink.test", around.sink.address())];
        servers.push(Server::Postfix(Postfix::start(&dir, &around.mailboxes, &routes).await?));
        say(&format!("Postfix' settings:\n{}", postfix::SETTINGS))?;
    }
    let amount = Amount {
        messages: args.messages,
        sessions: args.sessions,
        size: args.size,
        keep: args.keep,
        pipelining: args.pipelining,
    };
    let mut rows = Vec::new();
    for case in cases {
        let mut rounds: Vec<Vec<Measured>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..args.rounds {
            for (server, rounds) in servers.iter().zip(&mut rounds) {
                let (server, is_peer) = match (server, &held) {
                    (Server::Posthorn(_), Some(held)) if case == Case::Accepted => (held, false),
                    (Server::Posthorn(_), _) => (server, false),
                    (Server::Postfix(_), _) => (server, true),
                };
                if !is_peer || case.is_for_peers() {
                    let measured = case::measure(case, server, &amount, &around);
                    let failed = || format!("{} of {}", report::name(case), server.name());
                    rounds.push(measured.await.with_context(failed)?);
                }
            }
        }
        for (server, rounds) in servers.iter().zip(&rounds) {
            rows.extend(Row::new(case, server.name(), rounds));
        }
        say(&format!("measured {}", report::name(case)))?;
    }
    say(&format!("\n{}", report::table(&rows)))?;
    write(&args, &rows)
}

async fn posthorn(args: &Args, dir: &std::path::Path, around: &Surroundings, held: bool) -> Result<Posthorn> {
    let posthorn = Posthorn::start(&args.posthorn, dir, held).await?;
    posthorn.create_accounts(&around.mailboxes).await?;
    posthorn.create_route("sink.test", around.sink.address()).await?;
    Ok(posthorn)
}

fn write(args: &Args, rows: &[Row]) -> Result<()> {
    let mut settings = BTreeMap::from([
        ("sessions", args.sessions.to_string()),
        ("size", args.size.to_string()),
        ("messages", args.messages.to_string()),
        ("keep", args.keep.to_string()),
        ("pipelining", args.pipelining.to_string()),
    ]);
    if args.peers {
        settings.insert("postfix", postfix::SETTINGS.to_owned());
    }
    let at = OffsetDateTime::now_utc().format(&Rfc3339)?;
    let report = Report { at, machine: machine(), settings, rows };
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
