#![doc = include_str!("../README.md")]

mod accounts;
mod callers;
mod collect;
pub mod config;
mod copy;
mod error;
mod flags;
mod folder_name;
mod grpc;
mod notify;
mod placement;
mod store;
mod summary;
mod watch;
mod worker;

use std::time::Duration;

pub use config::{Config, DEFAULTS};
use posthorn_api::mailbox::v1::mailbox_service_server::MailboxServiceServer;
use posthorn_service::{Error, Grpc, Listen, Process, Running};
pub use store::migrate;

/// Above tonic's default of 4 MiB, for chunks of any client's choosing.
const MESSAGE_BYTES: usize = 64 << 20;

/// How long the last notices and the closing of connections may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the service until the process is told to stop and all that is in hand is finished or given back.
pub fn run(config: Config, process: Process) -> Running {
    Box::pin(compose(config, process))
}

async fn compose(config: Config, process: Process) -> Result<(), Error> {
    // A part that cannot go on stops the others of this service, not those of the process.
    let process = Process { shutdown: process.shutdown.child_token(), ..process };
    let postgres = process.ready.need("postgres");
    // Mailboxes are served without the queue, too.
    let stream = process.ready.want("queue stream");
    let notices = process.ready.need("postgres notices");
    let store::Ways { writing, early, reading, pool } =
        store::connect(&config.database, config.work.writers).map_err(Error::fatal)?;
    let telling = store::connect_to_tell(&config.database).map_err(Error::fatal)?;
    let queue = posthorn_service::connect(&config.queue)?;
    let queues = posthorn_service::replicas(&config.queue)?;
    let router = posthorn_service::connect(&config.router)?;
    let watched = watch::Watched::default();
    let (changed, to_send) = notify::notices(watched.clone());

    let mailboxes = grpc::Mailboxes {
        pool: pool.clone(),
        reading,
        callers: callers::Callers::new(router.clone(), &config),
        accounts: accounts::Accounts::new(router.clone()),
        watched: watched.clone(),
        changed: changed.clone(),
        config: config.mailbox.clone(),
        shutdown: process.shutdown.clone(),
    };
    let service = MailboxServiceServer::new(mailboxes)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let serve = serve(service, config.listen.clone(), process.clone());
    let needs = (postgres, stream);
    let work = worker::run(queues, (writing, early), changed, config.work.clone(), process.clone(), needs);
    let sending = tokio::spawn(to_send.send(telling));
    let shutdown = &process.shutdown;
    let listen = notify::listen(config.database.clone(), watched.clone(), notices, shutdown.clone());
    let every = config.mailbox.recheck_watched_every;
    let recheck = notify::recheck(pool.clone(), watched, every, shutdown.clone());
    let collect = collect::run(queue.clone(), router, pool.clone(), config.collect.clone(), shutdown.clone());
    let (served, worked, (), (), ()) = tokio::join!(serve, work, listen, recheck, collect);
    // Those who make notices have ended: the last ones go out. A call that was cut at the end of the drain time may
    // still hold on to either.
    let last = async {
        let _ = sending.await;
        pool.close().await;
    };
    let _ = tokio::time::timeout(LAST_WORDS, last).await;
    served.and(worked)
}

/// Serves the API; what ends it ends the service.
async fn serve(
    service: MailboxServiceServer<grpc::Mailboxes>,
    listen: Listen,
    process: Process,
) -> Result<(), Error> {
    let served = Grpc::new(posthorn_api::DESCRIPTORS).with(service).serve(&listen, &process).await;
    process.shutdown.cancel();
    served
}
