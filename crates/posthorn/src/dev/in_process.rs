//! All services in this process.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use posthorn_service::config::Sources;
use posthorn_service::telemetry::Telemetry;
use posthorn_service::{Error, Process};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ports::Ports;
use crate::services::Service;
use crate::settings;

struct Running {
    service: Service,
    process: Process,
    task: JoinHandle<Result<(), Error>>,
}

/// Starts all services, says when they answer, and stops them one after another when told to or when one fails.
pub(super) async fn run(
    sources: &Sources,
    telemetry: &Telemetry,
    ports: &Ports,
    data: &Path,
    shutdown: &CancellationToken,
) -> Result<()> {
    let failed = CancellationToken::new();
    let mut running = Vec::new();
    for service in Service::ALL {
        let loaded = service.load(sources).map_err(|m| settings::refused(&m))?;
        let process = Process::new(CancellationToken::new(), Some(telemetry.metrics.clone()));
        let on_end = failed.clone().drop_guard();
        let run = loaded.run(process.clone());
        let task = tokio::spawn(async move {
            let _on_end = on_end;
            run.await
        });
        running.push(Running { service, process, task });
    }
    let readiness: Vec<_> = running.iter().map(|r| r.process.ready.clone()).collect();
    let serve = async {
        for readiness in &readiness {
            readiness.complete().await;
        }
        super::say_ready(ports, data).await?;
        std::future::pending().await
    };
    let served: Result<()> = tokio::select! {
        served = serve => served,
        () = shutdown.cancelled() => Ok(()),
        () = failed.cancelled() => Ok(()),
    };
    let stopped = stop(running).await;
    served.and(stopped)
}

/// Whoever takes messages in stops first, the queue last; a service that failed says why.
async fn stop(running: Vec<Running>) -> Result<()> {
    let mut result = Ok(());
    for Running { service, process, task } in running.into_iter().rev() {
        process.shutdown.cancel();
        let ended = match task.await {
            Ok(ended) => ended.with_context(|| format!("{service} cannot go on")),
            Err(panic) => Err(anyhow!("{service} broke: {panic}")),
        };
        result = result.and(ended);
    }
    result
}
