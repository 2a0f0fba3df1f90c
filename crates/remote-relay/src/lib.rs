#![doc = include_str!("../README.md")]

mod attempt;
mod candidates;
pub mod config;
mod content;
mod courier;
mod hosts;
mod parcel;
mod pool;
mod report;
mod work;

use std::sync::Arc;
use std::time::Duration;

pub use config::{Config, DEFAULTS};
use posthorn_service::{Error, Grpc, Listen, Process, Running};
use tokio_util::sync::CancellationToken;

use content::Spool;
use courier::Courier;
use hosts::Hosts;
use pool::Pool;

/// Above tonic's default of 4 MiB: batches carry small contents.
const MESSAGE_BYTES: usize = 64 << 20;

/// What recording the last outcomes, and saying QUIT, may take after transfers were broken off.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Runs the service until the process is told to stop and all that is in hand is finished or given back.
pub fn run(config: Config, process: Process) -> Running {
    Box::pin(compose(config, process))
}

async fn compose(config: Config, process: Process) -> Result<(), Error> {
    // A part that cannot go on stops the others of this service, not those of the process.
    let process = Process { shutdown: process.shutdown.child_token(), ..process };
    let stream = process.ready.need("queue stream");
    let queue = posthorn_service::connect(&config.queue)?;
    let queues = posthorn_service::replicas(&config.queue)?;
    let router = posthorn_service::connect(&config.router)?;
    let config = Arc::new(config);
    let cut = CancellationToken::new();
    // Connections must not outlive the transfers: they are closed when the work has ended.
    let idle = CancellationToken::new();
    let pool = Pool::new(config.reuse, config.connections as usize, idle.clone());
    let courier = Courier {
        config: config.clone(),
        hosts: Hosts::new(router, config.clone()),
        spool: Spool::new(queue.clone(), config.conversion_memory.as_u64()),
        pool: pool.clone(),
        shutdown: process.shutdown.clone(),
        cut: cut.clone(),
    };

    let serve = serve(config.listen.clone(), process.clone());
    // What was transferred and is not recorded would be transferred again: a queue that is away is waited for.
    let session = posthorn_work::run(courier, queues, &stream, process.shutdown.clone(), cut.clone());
    let work = async {
        tokio::select! {
            () = session => {}
            () = late(process.shutdown.clone(), cut, config.listen.drain) => {
                tracing::warn!("outcomes could not be recorded in time; their work falls due again");
            }
        }
        idle.cancel();
        let _ = tokio::time::timeout(LAST_WORDS, pool.closed()).await;
    };
    let (served, ()) = tokio::join!(serve, work);
    served
}

/// Health, reflection and metrics; what ends them ends the service.
async fn serve(listen: Listen, process: Process) -> Result<(), Error> {
    let served = Grpc::new(posthorn_api::DESCRIPTORS).serve(&listen, &process).await;
    process.shutdown.cancel();
    served
}

/// Breaks transfers off shortly before the end of the drain time, and ends with it.
async fn late(shutdown: CancellationToken, cut: CancellationToken, drain: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(drain.saturating_sub(LAST_WORDS)).await;
    cut.cancel();
    tokio::time::sleep(LAST_WORDS).await;
}
