//! `posthorn dev`: everything here and now, with stores of its own.

mod first_run;
mod in_process;
mod ports;
mod processes;
mod stores;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use posthorn_service::config::Sources;
use posthorn_service::telemetry;
use tokio_util::sync::CancellationToken;

use crate::serve;
use crate::services::Service;
use crate::settings::{self, SettingsArgs};
use ports::Ports;
use stores::Stores;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where Postgres and Redis keep their files
    #[arg(long, value_name = "DIR", default_value = ".posthorn")]
    data: PathBuf,
    /// Added to every port, so that two can run side by side
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,
    /// Run each service as a process of its own, and start again one that dies
    #[arg(long)]
    processes: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Starts the stores and the five services, says when all of them answer, and stops them in order at SIGTERM or
/// SIGINT. What was stored stays in the directory.
pub(crate) async fn run(args: Args) -> Result<()> {
    let ports = Ports::new(args.port_offset)?;
    let sources = sources(&args, &ports)?;
    let (telemetry_config, ()) =
        settings::together(&sources, Service::check_all(&sources)).map_err(|m| settings::refused(&m))?;
    let telemetry = telemetry::init(&telemetry_config, "dev")?;

    let shutdown = CancellationToken::new();
    tokio::spawn(serve::cancel_on_signal(shutdown.clone())?);
    let mut stores = Stores::start(&args.data, &ports).await?;
    stores.migrate().await?;
    let services = async {
        if args.processes {
            let config = args.data.join("dev.toml");
            std::fs::write(&config, toml::to_string(&sources.file)?)
                .context("writing the services' settings")?;
            processes::run(&config, &args.settings.set, &ports, &args.data, &shutdown).await
        } else {
            in_process::run(&sources, &telemetry, &ports, &args.data, &shutdown).await
        }
    };
    let result = tokio::select! {
        result = services => result,
        never = stores.keep() => match never {},
    };
    stores.stop().await;
    result
}

/// The settings of development, which the caller's own (the file, the environment, `--set`) override.
fn sources(args: &Args, ports: &Ports) -> Result<Sources> {
    let mut sources = args.settings.sources()?;
    let mut file = ports.settings(&args.data)?;
    merge(&mut file, std::mem::take(&mut sources.file));
    sources.file = file;
    Ok(sources)
}

fn merge(below: &mut toml::Table, above: toml::Table) {
    for (name, value) in above {
        match (below.get_mut(&name), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(name, value);
            }
        }
    }
}

/// Makes the first domain and accounts if there never were any, and says that everything answers.
async fn say_ready(ports: &Ports, data: &std::path::Path) -> Result<()> {
    first_run::prepare(&ports.url(Service::Router), data).await?;
    settings::say(&format!("posthorn is ready: {ports}"))
}
