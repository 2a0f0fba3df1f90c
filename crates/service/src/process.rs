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
    /// What the service waits for: `/readyz` tells, and the gRPC health service whether it is ready.
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

/// What a service needs and whether it has it.
///
/// It is ready when the *needs* are met, without which it can serve nobody; a replica that is not ready is called by
/// nobody. What it merely *wants* it says as long as it has it not, and goes on with the rest of what it does.
#[derive(Clone, Debug)]
pub struct Readiness {
    unmet: Arc<Mutex<BTreeMap<&'static str, Unmet>>>,
    ready: Arc<watch::Sender<bool>>,
    /// Nothing at all is missing.
    complete: Arc<watch::Sender<bool>>,
}

#[derive(Debug)]
struct Unmet {
    reason: String,
    essential: bool,
}

impl Default for Readiness {
    /// Nothing is needed but that the servers are up, which [`crate::Grpc::serve`] says.
    fn default() -> Self {
        let server = Unmet { reason: "not started".to_owned(), essential: true };
        let unmet = BTreeMap::from([(GRPC_SERVER, server)]);
        Self { unmet: Arc::new(Mutex::new(unmet)), ready: Arc::default(), complete: Arc::default() }
    }
}

const GRPC_SERVER: &str = "grpc server";

impl Readiness {
    /// Registers something without which the service is of no use to anybody (`"postgres"`); it counts as missing until
    /// [`Need::met`].
    pub fn need(&self, name: &'static str) -> Need {
        self.register(name, true)
    }

    /// Registers something without which the service still does what its callers want (`"redis"`, of the queue); it
    /// counts as missing until [`Need::met`].
    pub fn want(&self, name: &'static str) -> Need {
        self.register(name, false)
    }

    fn register(&self, name: &'static str, essential: bool) -> Need {
        let need = Need { name, essential, readiness: self.clone() };
        need.missing("not connected yet");
        need
    }

    /// What is missing, and why.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let unmet = self.unmet.lock().unwrap_or_else(PoisonError::into_inner);
        unmet.iter().map(|(name, unmet)| (*name, unmet.reason.clone())).collect()
    }

    /// Whether all needs are met.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Changes of [`Readiness::is_ready`], the present state first.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Returns once nothing at all is missing.
    pub async fn complete(&self) {
        // The sender lives as long as `self`.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// The servers are up.
    pub(crate) fn serving(&self) {
        self.set(GRPC_SERVER, true, None);
    }

    fn set(&self, name: &'static str, essential: bool, missing: Option<String>) {
        let mut unmet = self.unmet.lock().unwrap_or_else(PoisonError::into_inner);
        match missing {
            Some(reason) => unmet.insert(name, Unmet { reason, essential }),
            None => unmet.remove(name),
        };
        let ready = unmet.values().all(|unmet| !unmet.essential);
        for (state, now) in [(&self.ready, ready), (&self.complete, unmet.is_empty())] {
            state.send_if_modified(|was| std::mem::replace(was, now) != now);
        }
    }
}

/// One thing a service needs or wants.
#[derive(Clone, Debug)]
pub struct Need {
    name: &'static str,
    essential: bool,
    readiness: Readiness,
}

impl Need {
    /// It is there.
    pub fn met(&self) {
        self.readiness.set(self.name, self.essential, None);
        metrics::gauge!("posthorn_need_met", "need" => self.name).set(1);
    }

    /// It is not, for this reason.
    pub fn missing(&self, reason: impl Display) {
        self.readiness.set(self.name, self.essential, Some(reason.to_string()));
        metrics::gauge!("posthorn_need_met", "need" => self.name).set(0);
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

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[tokio::test]
    async fn needs_decide_and_wants_are_only_told() {
        let readiness = Readiness::default();
        let (postgres, redis) = (readiness.need("postgres"), readiness.want("redis"));
        let names = || readiness.missing().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!((names(), readiness.is_ready()), (vec!["grpc server", "postgres", "redis"], false));
        readiness.serving();
        assert!(!readiness.is_ready());
        postgres.met();
        assert_eq!((names(), readiness.is_ready()), (vec!["redis"], true));
        redis.met();
        readiness.complete().await;
        redis.missing("it is gone");
        assert_eq!(readiness.missing(), [("redis", "it is gone".to_owned())]);
        assert!(readiness.is_ready());
        postgres.missing("it is gone");
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_metric_says_what_is_met() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let readiness = Readiness::default();
            readiness.need("postgres").met();
            readiness.want("redis");
        });
        let metrics = recorder.handle().render();
        for line in ["posthorn_need_met{need=\"postgres\"} 1", "posthorn_need_met{need=\"redis\"} 0"] {
            assert!(metrics.contains(line), "{metrics}");
        }
    }
}
