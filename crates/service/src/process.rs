//! The signal to stop, and what a service still waits for.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What surrounds a service: handed to its `run`, cheap to clone.
#[derive(Clone, Debug)]
pub struct Process {
    /// Cancelled when the service is to stop: it takes no more work, finishes or gives back what it holds, and `run`
    /// returns.
    pub shutdown: CancellationToken,
    /// What the service waits for; `/readyz` and the gRPC health service tell.
    pub ready: Readiness,
    /// Renders `/metrics`; `None` where no recorder was installed (in tests).
    pub metrics: Option<PrometheusHandle>,
}

impl Process {
    /// A process that waits for nothing yet.
    pub fn new(shutdown: CancellationToken, metrics: Option<PrometheusHandle>) -> Self {
        Self { shutdown, ready: Readiness::default(), metrics }
    }
}

/// What a service needs and whether it has it. Ready when all needs are met.
#[derive(Clone, Debug)]
pub struct Readiness {
    needs: Arc<Mutex<BTreeMap<&'static str, String>>>,
    ready: Arc<watch::Sender<bool>>,
}

impl Default for Readiness {
    /// Nothing is needed but that the servers are up, which [`crate::Grpc::serve`] says.
    fn default() -> Self {
        let needs = BTreeMap::from([("grpc server", "not started".to_owned())]);
        Self { needs: Arc::new(Mutex::new(needs)), ready: Arc::new(watch::Sender::new(false)) }
    }
}

impl Readiness {
    /// Registers something the service needs (`"postgres"`); it counts as missing until [`Need::met`].
    pub fn need(&self, name: &'static str) -> Need {
        self.set(name, Some("not connected yet".to_owned()));
        Need { name, readiness: self.clone() }
    }

    /// What is missing, and why.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let needs = self.needs.lock().unwrap_or_else(PoisonError::into_inner);
        needs.iter().map(|(name, reason)| (*name, reason.clone())).collect()
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Changes of [`Readiness::is_ready`], the present state first.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    pub(crate) fn set(&self, name: &'static str, missing: Option<String>) {
        let mut needs = self.needs.lock().unwrap_or_else(PoisonError::into_inner);
        match missing {
            Some(reason) => needs.insert(name, reason),
            None => needs.remove(name),
        };
        let ready = needs.is_empty();
        self.ready.send_if_modified(|was| std::mem::replace(was, ready) != ready);
    }
}

/// One thing a service needs.
#[derive(Clone, Debug)]
pub struct Need {
    name: &'static str,
    readiness: Readiness,
}

impl Need {
    /// It is there.
    pub fn met(&self) {
        self.readiness.set(self.name, None);
    }

    /// It is not, for this reason.
    pub fn missing(&self, reason: impl Display) {
        self.readiness.set(self.name, Some(reason.to_string()));
    }
}

/// Tries until it succeeds, saying what it waits for; pauses grow from 100 ms to 5 s. `None` when told to stop.
///
/// For what comes back by itself: a store that is starting, another service's stream.
pub async fn wait_for<T, E: Display>(
    need: &Need,
    shutdown: &CancellationToken,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Option<T> {
    let mut pause = Duration::from_millis(100);
    loop {
        let reason = tokio::select! {
            result = attempt() => match result {
                Ok(value) => {
                    need.met();
                    return Some(value);
                }
                Err(reason) => reason,
            },
            () = shutdown.cancelled() => return None,
        };
        need.missing(&reason);
        tracing::warn!(need = need.name, %reason, "waiting for {}, trying again in {pause:?}", need.name);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return None,
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
