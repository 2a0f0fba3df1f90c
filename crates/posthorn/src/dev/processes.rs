//! Each service as a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::ports::Ports;
use crate::services::Service;
use crate::settings;

/// A service that lived shorter than this is started again only after a pause.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// How long a service may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

/// Starts all services, keeps each one running, says when they answer, and stops them one after another.
pub(super) async fn run(
    config: &Path,
    set: &[(String, String)],
    ports: &Ports,
    data: &Path,
    shutdown: &CancellationToken,
) -> Result<()> {
    let mut keepers = Vec::new();
    for service in Service::ALL {
        let stop = CancellationToken::new();
        let keep = keep_running(service, arguments(service, config, set), stop.clone());
        keepers.push((stop, tokio::spawn(keep)));
    }
    let serve = async {
        all_serving(ports).await?;
        super::say_ready(ports, data).await?;
        std::future::pending().await
    };
    let mut result: Result<()> = tokio::select! {
        served = serve => served,
        () = shutdown.cancelled() => Ok(()),
    };
    for (stop, keeper) in keepers.into_iter().rev() {
        stop.cancel();
        result = result.and(keeper.await.context("a keeper broke").flatten());
    }
    result
}

fn arguments(service: Service, config: &Path, set: &[(String, String)]) -> Vec<std::ffi::OsString> {
    let mut arguments =
        vec![service.name().into(), "--until-stdin-closes".into(), "--config".into(), config.into()];
    for (key, value) in set {
        arguments.push("--set".into());
        arguments.push(format!("{key}={value}").into());
    }
    arguments
}

/// Starts the service's process again whenever it ends, until told to stop it.
async fn keep_running(
    service: Service,
    arguments: Vec<std::ffi::OsString>,
    stop: CancellationToken,
) -> Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    while !stop.is_cancelled() {
        let started = Instant::now();
        let mut child = Command::new(&program)
            .args(&arguments)
            // The service stops when this pipe closes, which it does even when this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A Ctrl-C at the terminal is for this process, which stops the services in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {service}"))?;
        // Waiting for a child closes the pipe that it holds: it is held here.
        let _stdin = child.stdin.take();
        if let Some(pid) = child.id() {
            settings::say(&format!("{service} pid {pid}"))?;
        }
        tokio::select! {
            status = child.wait() => {
                tracing::warn!(service = service.name(), status = ?status.ok(), "ended by itself: starting it again");
            }
            () = stop.cancelled() => {
                stop_child(service, &mut child).await;
                return Ok(());
            }
        }
        if started.elapsed() < SHORT_LIFE {
            tokio::select! {
                () = tokio::time::sleep(SHORT_LIFE) => {}
                () = stop.cancelled() => {}
            }
        }
    }
    Ok(())
}

async fn stop_child(service: Service, child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(STOP_DEADLINE, child.wait()).await.is_err() {
        tracing::error!(service = service.name(), "does not stop: killing it");
        let _ = child.kill().await;
    }
}

/// Waits until each service's health says that it serves.
async fn all_serving(ports: &Ports) -> Result<()> {
    let mut waiting = JoinSet::new();
    for service in Service::ALL {
        let channel = posthorn_service::connect(&ports.url(service))?;
        waiting.spawn(async move {
            let mut health = HealthClient::new(channel);
            loop {
                let answer = health.check(HealthCheckRequest::default()).await;
                if answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    while waiting.join_next().await.is_some() {}
    Ok(())
}
