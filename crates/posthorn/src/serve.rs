//! `posthorn SERVICE`: one service as a process of its own.

use std::time::Duration;

use anyhow::{Context as _, Result};
use posthorn_service::{Process, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::services::Service;
use crate::settings::{self, SettingsArgs};

/// What a service may take beyond its drain time before it is cut off.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Stop when standard input is closed: set by `posthorn dev --processes`, whose services end with it
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Runs the service until SIGTERM or SIGINT, then lets it drain.
pub(crate) async fn run(service: Service, args: Args) -> Result<()> {
    let sources = args.settings.sources()?;
    let (telemetry_config, loaded) =
        settings::together(&sources, service.load(&sources)).map_err(|m| settings::refused(&m))?;
    let telemetry = telemetry::init(&telemetry_config, service.name())?;

    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone())?);
    if args.until_stdin_closes {
        cancel_on_end_of_input(shutdown.clone());
    }
    let drain = loaded.drain();
    let process = Process::new(shutdown.clone(), Some(telemetry.metrics.clone()));
    tracing::info!(service = service.name(), version = env!("CARGO_PKG_VERSION"), "starting");
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain + GRACE).await;
    };
    tokio::select! {
        result = loaded.run(process) => result.with_context(|| format!("{service} cannot go on"))?,
        () = deadline => tracing::warn!(?drain, "not drained in time: ending all the same"),
    }
    tracing::info!(service = service.name(), "stopped");
    Ok(())
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT.
pub(crate) fn cancel_on_signal(shutdown: CancellationToken) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        shutdown.cancel();
    })
}

/// On a thread of its own: a runtime that ends would wait for a read of its own to come back.
fn cancel_on_end_of_input(shutdown: CancellationToken) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        shutdown.cancel();
    });
}
