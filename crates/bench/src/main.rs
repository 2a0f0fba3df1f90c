#![doc = include_str!("../README.md")]

mod case;
mod dovecot;
mod letter;
mod maildir;
mod postfix;
mod posthorn;
mod proc;
mod report;
mod run;
mod server;
mod sink;
mod source;
mod trial;
mod valve;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use sink::{Manner, Sink};
use source::{Door, Load};

#[derive(Debug, Parser)]
#[command(about = "Measures Posthorn, alone and beside its peers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the servers, measure the cases, print the table
    Run(run::Args),
    /// Only the load: hand messages in to a server that runs
    Source(SourceArgs),
    /// Only a receiving server that takes all and counts
    Sink {
        /// Where to listen
        #[arg(default_value = "127.0.0.1:2600")]
        listen: SocketAddr,
    },
}

#[derive(Debug, clap::Args)]
struct SourceArgs {
    /// An SMTP server, or http://HOST:PORT of ingress for gRPC
    server: String,
    /// Recipients; messages go to them by turns
    #[arg(required = true)]
    mailboxes: Vec<String>,
    #[arg(long, default_value_t = 1000)]
    messages: u64,
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Octets of a message
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Recipients of a message
    #[arg(long, default_value_t = 1)]
    recipients: usize,
    /// One connection for all messages of a session
    #[arg(long)]
    keep: bool,
    /// Send commands without waiting for answers
    #[arg(long)]
    pipelining: bool,
    /// Messages a second to begin; without it, as fast as they are taken
    #[arg(long)]
    rate: Option<f64>,
}

// One thread: the source is to take as little as it can from what it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let work = async {
        match Cli::parse().command {
            Command::Run(args) => run::run(args).await,
            Command::Source(args) => source_alone(args).await,
            Command::Sink { listen } => sink_alone(listen).await,
        }
    };
    // What was started is stopped all the same.
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    }
}

async fn source_alone(args: SourceArgs) -> Result<()> {
    let door = if args.server.starts_with("http") {
        Door::Grpc(args.server)
    } else {
        Door::Smtp(tokio::net::lookup_host(&args.server).await?.take(1).collect())
    };
    let mut load = Load::new(door, args.sessions, args.messages, args.size);
    (load.mailboxes, load.recipients, load.rate) = (args.mailboxes, args.recipients, args.rate);
    (load.keep, load.pipelining) = (args.keep, args.pipelining);
    let sent = source::send(load).await?;
    let seconds = (sent.ended - sent.began).as_secs_f64();
    let [p50, p99] = [0.5, 0.99].map(|q| sent.latency.value_at_quantile(q) as f64 / 1000.0);
    let (rate, own) = (args.messages as f64 / seconds, proc::own_cpu()?);
    say(&format!(
        "{seconds:.2} s, {rate:.0} messages/s, 250 after {p50:.1} ms (p99 {p99:.1}), {own:.2} s of CPU"
    ))
}

async fn sink_alone(listen: SocketAddr) -> Result<()> {
    let mut sink = Sink::listen(listen, Manner::Takes).await?;
    say(&format!("listening on {}", sink.address()))?;
    loop {
        let (before, began) = (sink.taken(), Instant::now());
        sink.wait_for(before + 1).await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        say(&format!(
            "{} taken, {} of them in {:.1?}",
            sink.taken(),
            sink.taken() - before,
            began.elapsed()
        ))?;
    }
}

/// Prints at once.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("writing to standard output")
}
