//! The command line.

use clap::{Parser, Subcommand};

use crate::services::Service;
use crate::settings::SettingsArgs;
use crate::{ctl, dev, forward, migrate, serve, settings};

/// Posthorn, a mail server as a set of services.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take messages in: SMTP and the Submit API
    Ingress(serve::Args),
    /// Keep messages until they are delivered: the spool and the schedule
    Queue(serve::Args),
    /// Decide where messages go: the directory and the DNS
    Router(serve::Args),
    /// Put messages into mailboxes, and serve the mailboxes
    LocalDelivery(serve::Args),
    /// Transfer messages to other servers
    RemoteRelay(serve::Args),
    /// Bring the database's schemas up to date; harmless to repeat
    Migrate(SettingsArgs),
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Run everything here and now, with a private Postgres and Redis
    Dev(dev::Args),
    /// Pass TCP connections on to the replicas behind a name
    Forward(forward::Args),
    /// Manage domains, accounts, mailboxes and the queue; send a message, follow one
    Ctl(Box<ctl::Ctl>),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Tell all that is wrong with the settings, or that nothing is
    Check(SettingsArgs),
    /// Print every setting with its default and what it means
    Defaults,
}

pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Ingress(args) => serve::run(Service::Ingress, args).await,
        Command::Queue(args) => serve::run(Service::Queue, args).await,
        Command::Router(args) => serve::run(Service::Router, args).await,
        Command::LocalDelivery(args) => serve::run(Service::LocalDelivery, args).await,
        Command::RemoteRelay(args) => serve::run(Service::RemoteRelay, args).await,
        Command::Migrate(args) => migrate::run(&args).await,
        Command::Config { command: ConfigCommand::Check(args) } => settings::check(&args),
        Command::Config { command: ConfigCommand::Defaults } => settings::print_defaults(),
        Command::Dev(args) => dev::run(args).await,
        Command::Forward(args) => forward::run(args).await,
        Command::Ctl(args) => ctl::run(*args).await,
    }
}
