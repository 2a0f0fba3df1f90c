//! The five services, as the binary sees them: a name, a section of settings, something to run.

use std::fmt;

use anyhow::Result;
use posthorn_service::Process;
use posthorn_service::config::{Mistake, Sources};
use {
    posthorn_ingress as ingress, posthorn_local_delivery as local_delivery, posthorn_queue as queue,
    posthorn_remote_relay as remote_relay, posthorn_router as router,
};

/// One of the five.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Ingress,
    Queue,
    Router,
    LocalDelivery,
    RemoteRelay,
}

impl Service {
    /// In the order in which they are started; they are stopped the other way round, so that who takes messages in
    /// stops first and who remembers them last.
    pub(crate) const ALL: [Self; 5] =
        [Self::Queue, Self::Router, Self::LocalDelivery, Self::RemoteRelay, Self::Ingress];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Queue => "queue",
            Self::Router => "router",
            Self::LocalDelivery => "local-delivery",
            Self::RemoteRelay => "remote-relay",
        }
    }

    /// The section of its settings.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Queue => "queue",
            Self::Router => "router",
            Self::LocalDelivery => "local_delivery",
            Self::RemoteRelay => "relay",
        }
    }

    /// The commented defaults of its section.
    pub(crate) fn defaults(self) -> &'static str {
        match self {
            Self::Ingress => ingress::DEFAULTS,
            Self::Queue => queue::DEFAULTS,
            Self::Router => router::DEFAULTS,
            Self::LocalDelivery => local_delivery::DEFAULTS,
            Self::RemoteRelay => remote_relay::DEFAULTS,
        }
    }

    /// Its settings, ready to run with.
    pub(crate) fn load(self, sources: &Sources) -> Result<Loaded, Vec<Mistake>> {
        Ok(match self {
            Self::Ingress => Loaded::Ingress(ingress::Config::load(sources)?.into()),
            Self::Queue => Loaded::Queue(queue::Config::load(sources)?.into()),
            Self::Router => Loaded::Router(router::Config::load(sources)?.into()),
            Self::LocalDelivery => Loaded::LocalDelivery(local_delivery::Config::load(sources)?.into()),
            Self::RemoteRelay => Loaded::RemoteRelay(remote_relay::Config::load(sources)?.into()),
        })
    }

    /// Whether all of them can be run with their settings.
    pub(crate) fn check_all(sources: &Sources) -> Result<(), Vec<Mistake>> {
        let mistakes: Vec<Mistake> =
            Self::ALL.iter().filter_map(|service| service.load(sources).err()).flatten().collect();
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A service with its settings.
#[derive(Debug)]
pub(crate) enum Loaded {
    Ingress(Box<ingress::Config>),
    Queue(Box<queue::Config>),
    Router(Box<router::Config>),
    LocalDelivery(Box<local_delivery::Config>),
    RemoteRelay(Box<remote_relay::Config>),
}

impl Loaded {
    /// How long it may take to stop.
    pub(crate) fn drain(&self) -> std::time::Duration {
        match self {
            Self::Ingress(config) => config.listen.drain,
            Self::Queue(config) => config.listen.drain,
            Self::Router(config) => config.listen.drain,
            Self::LocalDelivery(config) => config.listen.drain,
            Self::RemoteRelay(config) => config.listen.drain,
        }
    }

    /// Runs until told to stop by `process.shutdown`, or until it cannot go on.
    pub(crate) async fn run(self, process: Process) -> Result<(), posthorn_service::Error> {
        match self {
            Self::Ingress(config) => ingress::run(*config, process).await,
            Self::Queue(config) => queue::run(*config, process).await,
            Self::Router(config) => router::run(*config, process).await,
            Self::LocalDelivery(config) => local_delivery::run(*config, process).await,
            Self::RemoteRelay(config) => remote_relay::run(*config, process).await,
        }
    }
}
