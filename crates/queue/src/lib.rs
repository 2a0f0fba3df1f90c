#![doc = include_str!("../README.md")]

mod accept;
mod callers;
mod clean;
mod clock;
mod config;
mod dispatch;
mod error;
mod fill;
mod grpc;
mod hub;
mod in_hand;
mod late;
mod leases;
mod level;
mod load;
mod message;
mod notice;
mod operate;
mod outcome;
mod poison;
mod retry;
mod schedule;
mod spool;
mod timer;
mod trace;
mod wake;

use std::sync::Arc;
use std::time::Duration;

use posthorn_api::queue::v1::queue_service_server::QueueServiceServer;
use posthorn_api::spool::v1::spool_service_server::SpoolServiceServer;
use posthorn_api::trace::v1::trace_service_server::TraceServiceServer;
use posthorn_api::work::v1::work_service_server::WorkServiceServer;
use posthorn_service::{Error, Grpc, Process, Running};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::{Config, DEFAULTS};
pub use spool::migrate;

/// How long Redis is asked for the time at the start.
const CLOCK: Duration = Duration::from_secs(1);
/// How long the last writes may take once the drain time is over.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Runs the queue until `process.shutdown`; returns when what it was told has been written.
pub fn run(config: Config, process: Process) -> Running {
    Box::pin(compose(config, process))
}

async fn compose(config: Config, process: Process) -> Result<(), Error> {
    let options = config.database.options("posthorn-queue").map_err(Error::fatal)?;
    let for_calls = (config.database.max_connections / 2).max(1);
    let for_work = config.database.max_connections.saturating_sub(for_calls).max(1);
    let pool = config.database.pool(options.clone(), for_calls);
    let standing = config.database.standing(options, for_work);
    let router = posthorn_service::connect(&config.router)?;
    let callers = callers::Callers::new(config.trusted_networks.clone(), router);
    let schedule = schedule::Schedule::open(&config.redis).map_err(Error::fatal)?;
    // While Redis is away mail is still accepted (R2), so callers must find it.
    let (postgres, redis) = (process.ready.need("postgres"), process.ready.want("redis"));
    let spool_read = process.ready.want("spool");
    let watchers = trace::Watchers::new(config.trace.max_lag);
    let clock = first_time(&schedule).await;
    let hub = Arc::new(hub::Hub {
        policy: retry::Policy {
            schedule: config.retry.schedule.clone(),
            uncertain: config.retry.uncertain,
            attempts: config.give_up.attempts,
        },
        level: Arc::new(level::Level::new(&config)),
        wake: wake::Wake::new(watchers.clone()),
        watchers,
        leases: leases::Leases::new(config.lease.length),
        in_hand: in_hand::InHand::new(config.lease.in_hand, config.lease.length),
        recover: Default::default(),
        timer: Default::default(),
        shutdown: process.shutdown.clone(),
        cut: Default::default(),
        pool,
        standing,
        schedule,
        clock,
        config,
    });
    // The writers end by themselves, when those who hand in work are gone and all is written.
    let mut writers = JoinSet::new();
    let accept = accept::start(&hub, &mut writers);
    let outcomes = outcome::start(&hub, &mut writers);
    let mut helpers = JoinSet::new();
    // It listens meanwhile: who asks hears what it waits for.
    helpers.spawn(fill::count_first(hub.clone(), postgres));
    helpers.spawn(fill::run(hub.clone(), fill::Stores { redis, spool: spool_read }));
    helpers.spawn(timer::run(hub.clone()));
    helpers.spawn(clean::run(hub.clone()));
    helpers.spawn(dispatch::pass_on_what_waits(hub.clone()));
    // The other replicas hear of work until the last of it is written.
    let written = CancellationToken::new();
    let waking = tokio::spawn(wake::run(hub.clone(), written.clone()));

    let spool = SpoolServiceServer::new(grpc::Spool { hub: hub.clone(), accept })
        .max_decoding_message_size(grpc::MAX_MESSAGE)
        .max_encoding_message_size(grpc::MAX_MESSAGE);
    let work = WorkServiceServer::new(grpc::Work { hub: hub.clone(), outcomes })
        .max_decoding_message_size(grpc::MAX_MESSAGE)
        .max_encoding_message_size(grpc::MAX_MESSAGE);
    let queue = QueueServiceServer::new(grpc::Queue { hub: hub.clone(), callers: callers.clone() });
    let trace = TraceServiceServer::new(grpc::Trace { hub: hub.clone(), callers });
    let services = Grpc::new(posthorn_api::DESCRIPTORS).with(spool).with(work).with(queue).with(trace);
    let served = services.serve(&hub.config.listen, &process).await;
    // Also where the server ended by itself.
    process.shutdown.cancel();
    hub.cut.cancel();
    helpers.join_all().await;
    let last = async { while writers.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WRITES, last).await.is_err() {
        tracing::warn!("some of what was handed in at the end could not be written");
    }
    written.cancel();
    let _ = waking.await;
    hub.standing.close().await;
    posthorn_database::close(&hub.pool).await;
    served
}

/// Nothing is accepted by another clock than the other replicas', if theirs can be had.
async fn first_time(schedule: &schedule::Schedule) -> clock::Clock {
    let clock = clock::Clock::new(time::OffsetDateTime::now_utc());
    if let Ok(Ok(time)) = tokio::time::timeout(CLOCK, schedule.time()).await {
        clock.set(time);
    }
    clock
}
