//! `posthorn ctl`: an operator's and a tester's commands, each a call or a few to the services.

mod connect;
mod directory;
pub(crate) mod example;
mod explain;
mod health;
mod mailbox;
mod output;
mod queue;
mod send;
mod trace;
mod values;

use std::io::{self, BufWriter, Write};

use anyhow::Result;

use connect::{Services, ServicesArgs};
use output::Output;

/// Manage domains, accounts, mailboxes and the queue; send a message, follow one
#[derive(Debug, clap::Args)]
pub(crate) struct Ctl {
    #[command(flatten)]
    services: ServicesArgs,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The organizations that share this system
    #[command(subcommand)]
    Tenant(directory::Tenant),
    /// The domains whose mail is kept here
    #[command(subcommand)]
    Domain(directory::Domain),
    /// The people and programs that have a mailbox
    #[command(subcommand)]
    Account(directory::Account),
    /// Addresses that stand for others
    #[command(subcommand)]
    Alias(directory::Alias),
    /// Distribution lists: addresses that stand for many, with an owner who hears of failures
    #[command(subcommand)]
    List(directory::List),
    /// Servers to use for a domain in place of those that the DNS names
    #[command(subcommand)]
    Route(directory::Route),
    /// API keys of programs
    #[command(subcommand)]
    Key(directory::Key),
    /// Hand a message in, and print its id
    Send(send::Send),
    /// Read and change a mailbox
    #[command(subcommand)]
    Mailbox(mailbox::Mailbox),
    /// What waits, and what to do about it
    #[command(subcommand)]
    Queue(queue::Queue),
    /// All that happened to a message, with the words of the servers that it met
    Trace(trace::Trace),
    /// What happens to all messages, as it happens
    Events(trace::Events),
    /// Where a message to an address would go, and why, without sending one
    Explain(explain::Explain),
    /// Whether the services work; fails unless all do
    Health(health::Health),
    /// Make the domain example.test with alice and bob (password posthorn), to try things with
    Example(example::Example),
}

/// Runs a command, and prints what it has to say on standard output.
pub(crate) async fn run(ctl: Ctl) -> Result<()> {
    run_to(ctl, &mut BufWriter::new(io::stdout())).await
}

async fn run_to(ctl: Ctl, to: &mut dyn Write) -> Result<()> {
    let result = async {
        let services = Services::new(ctl.services)?;
        ctl.command.run(&services, &mut Output::new(ctl.json, to)).await
    }
    .await;
    // What was printed before a failure is to be seen.
    let flushed = to.flush().map_err(Into::into);
    match result.and(flushed) {
        Err(error) if output::is_broken_pipe(&error) => Ok(()),
        Err(error) => Err(connect::explain(error)),
        Ok(()) => Ok(()),
    }
}

impl Command {
    async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        match self {
            Self::Tenant(command) => command.run(services, out).await,
            Self::Domain(command) => command.run(services, out).await,
            Self::Account(command) => command.run(services, out).await,
            Self::Alias(command) => command.run(services, out).await,
            Self::List(command) => command.run(services, out).await,
            Self::Route(command) => command.run(services, out).await,
            Self::Key(command) => command.run(services, out).await,
            Self::Send(command) => command.run(services, out).await,
            Self::Mailbox(command) => command.run(services, out).await,
            Self::Queue(command) => command.run(services, out).await,
            Self::Trace(command) => command.run(services, out).await,
            Self::Events(command) => command.run(services, out).await,
            Self::Explain(command) => command.run(services, out).await,
            Self::Health(command) => command.run(services, out).await,
            Self::Example(command) => command.run(services, out).await,
        }
    }
}

#[cfg(test)]
mod tests;
