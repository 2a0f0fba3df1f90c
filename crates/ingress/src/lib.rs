#![doc = include_str!("../README.md")]

mod admission;
mod budget;
mod compose;
mod config;
mod handover;
mod header;
mod incoming;
mod line_ends;
mod received;
mod session;
mod submission;
mod upload;

use std::net::SocketAddr;
use std::sync::Arc;

use posthorn_api::submission::v1::submission_service_server::SubmissionServiceServer;
use posthorn_service::{Error, Grpc, Process, Running, connect};
use posthorn_smtp_io::server::{Gate, Listener};

pub use config::{Config, DEFAULTS, Handover, Limits, Smtp};

use crate::incoming::Rules;
use crate::session::Door;
use crate::submission::{Doorman, Submission};

/// The most that is sent or taken in one gRPC message; a large message comes and goes in chunks.
pub(crate) const MESSAGE_LIMIT: usize = 64 << 20;

/// Runs the service until `process.shutdown`: the SMTP listeners and the gRPC server.
pub fn run(config: Config, process: Process) -> Running {
    Box::pin(compose(config, process))
}

async fn compose(config: Config, process: Process) -> Result<(), Error> {
    let admission = admission::Admission::new(&config.router, &config.handover)?;
    let handover = handover::Handover::start(connect(&config.queue)?, &config.handover);
    let rules = |completes| Rules {
        hostname: config.hostname.to_string(),
        hops: config.limits.hops,
        header_size: config::octets(config.limits.header_size),
        inline: config::octets(config.handover.inline),
        completes,
        wants_from: false,
    };
    let budget = budget::Budget::new(config::octets(config.limits.buffered));
    let door = |name, is_submission| {
        Arc::new(Door {
            name,
            admission: admission.clone(),
            handover: handover.clone(),
            budget: budget.clone(),
            trusted: config.trusted_networks.clone(),
            trusted_only: is_submission,
            rules: rules(is_submission),
        })
    };
    let gate = Gate::new(config.limits.connections, config.limits.connections_per_client);
    let (smtp, submission) = (door("smtp", false), door("submission", true));
    let mut doors = tokio::task::JoinSet::new();
    for (addresses, door) in [(&config.smtp.listen, smtp), (&config.submission.listen, submission)] {
        for address in addresses {
            let listener = listen(*address, &config, &gate)?;
            tracing::info!(%address, door = door.name, "listening");
            let door = Arc::clone(&door);
            doors.spawn(listener.serve(process.shutdown.clone(), config.listen.drain, move |connection| {
                let door = Arc::clone(&door);
                async move { door.serve(connection).await }
            }));
        }
    }
    let submission = Arc::new(Submission {
        admission,
        handover,
        budget,
        trusted: config.trusted_networks.clone(),
        rules: Rules { wants_from: true, ..rules(true) },
        message_size: config.limits.message_size.as_u64(),
        recipients: config.limits.recipients,
        part_timeout: config.limits.data_timeout,
        stream_timeout: config.limits.session_timeout,
    });
    let submissions = SubmissionServiceServer::from_arc(Arc::clone(&submission))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let grpc = Grpc::new(posthorn_api::DESCRIPTORS).with(Doorman::before(submissions, submission));
    let served = grpc.serve(&config.listen, &process).await;
    process.shutdown.cancel();
    while doors.join_next().await.is_some() {}
    served
}

fn listen(address: SocketAddr, config: &Config, gate: &Arc<Gate>) -> Result<Listener, Error> {
    Listener::bind(address, config.session(), Arc::clone(gate), None)
        .map_err(|source| Error::Bind { address, source })
}
