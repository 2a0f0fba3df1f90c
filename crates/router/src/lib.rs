#![doc = include_str!("../README.md")]

mod cache;
mod callers;
pub mod config;
mod decide;
mod directory;
mod dns;
mod grpc;
mod known;
mod listen;
mod mx;
mod refusal;
mod router;
mod secret;
mod watchers;
mod work;

use std::sync::Arc;

pub use config::{Config, DEFAULTS};
use posthorn_api::directory::v1::directory_service_server::DirectoryServiceServer;
use posthorn_api::routing::v1::routing_service_server::RoutingServiceServer;
use posthorn_service::{Error, Grpc, Process, Running};

/// Serves the directory and the routing, and works for the queue, until told to stop.
pub fn run(config: Config, process: Process) -> Running {
    Box::pin(compose(config, process))
}

async fn compose(config: Config, process: Process) -> Result<(), Error> {
    let policy = config.policy();
    let cache = Arc::new(cache::Cache::new(&config.cache));
    let pool = directory::pool(&config.database).map_err(Error::fatal)?;
    let dns = dns::Dns::new(&config.dns, policy.own.clone()).map_err(Error::fatal)?;
    let router = Arc::new(router::Router::new(pool.clone(), cache.clone(), dns, policy, &config));
    let queue = posthorn_service::replicas(&config.queue)?;
    let callers = callers::Callers { trusted: config.trusted_networks.clone() };

    let listener = tokio::spawn(listen::listen(
        pool.clone(),
        cache,
        config.cache.heartbeat,
        process.ready.need("postgres"),
        process.shutdown.clone(),
    ));
    let worker = tokio::spawn(work::work(
        router.clone(),
        queue,
        config.work.clone(),
        // Who asks whether a recipient is known need not wait for the queue.
        process.ready.want("queue"),
        process.shutdown.clone(),
    ));
    let served = Grpc::new(posthorn_api::DESCRIPTORS)
        .with(DirectoryServiceServer::new(grpc::directory::Directory { router: router.clone(), callers }))
        .with(RoutingServiceServer::new(grpc::routing::Routing {
            router,
            keys_for: config.cache.keys,
            recipients_for: config.cache.recipients,
            shutdown: process.shutdown.clone(),
        }))
        .serve(&config.listen, &process)
        .await;
    // A server that could not be started ends the rest too.
    process.shutdown.cancel();
    worker.await.map_err(Error::fatal)?;
    listener.await.map_err(Error::fatal)?;
    posthorn_database::close(&pool).await;
    served
}

/// Brings the schema `directory` up to date; as the owner of the database. Safe when several run at once.
pub async fn migrate(url: &str) -> Result<(), sqlx::migrate::MigrateError> {
    posthorn_database::migrate(url, "directory", sqlx::migrate!()).await
}
