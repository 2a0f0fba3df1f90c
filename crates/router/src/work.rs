//! The worker: takes fresh messages from the queue and returns what was decided for their recipients.
//!
//! One stream. Every message is decided on its own, many at once, and reported as soon as it is; what is ready together
//! goes in one report. While the directory is away messages are given back and no more are asked for.

mod item;
mod session;
mod slots;

use std::sync::Arc;

use posthorn_api::work::v1::work_service_client::WorkServiceClient;
use posthorn_api::work::v1::{Hello, WorkKind, WorkRequest, WorkResponse, work_request};
use posthorn_service::{Channel, Need, wait_for};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::config;
use crate::router::Router;
use session::{Ended, Session};

/// Reports may be large: a message may have thousands of recipients.
const LARGEST_MESSAGE: usize = 64 << 20;

/// Requests that wait to be sent.
const REQUESTS: usize = 64;

/// Works until told to stop; then what was begun is finished and acknowledged, and the rest given back.
pub(crate) async fn work(
    router: Arc<Router>,
    channel: Channel,
    config: config::Work,
    need: Need,
    shutdown: CancellationToken,
) {
    loop {
        let (channel, max_batch) = (channel.clone(), config.max_batch);
        let opened = async move || open(channel.clone(), max_batch).await.map_err(told);
        let Some(stream) = wait_for(&need, &shutdown, opened).await else { return };
        let session = Session::new(router.clone(), stream.requests, &config);
        match session.run(stream.responses, &shutdown).await {
            Ended::Stopped => return,
            Ended::SentAway(reason) => tracing::info!(reason, "the queue asks to connect anew"),
            Ended::Lost(reason) => {
                need.missing(&reason);
                tracing::warn!(%reason, "lost the queue: connecting again");
            }
        }
    }
}

/// A stream to the queue.
struct Stream {
    requests: mpsc::Sender<WorkRequest>,
    responses: Streaming<WorkResponse>,
}

async fn open(channel: Channel, max_batch: u32) -> Result<Stream, Status> {
    let (requests, outgoing) = mpsc::channel(REQUESTS);
    let hello = Hello {
        kind: WorkKind::Route.into(),
        worker: format!("router pid {}", std::process::id()),
        max_batch,
    };
    let hello = WorkRequest { request: Some(work_request::Request::Hello(hello)) };
    requests.try_send(hello).map_err(|_| Status::internal("no room for the first request"))?;
    let mut client = WorkServiceClient::new(channel)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let responses = client.work(ReceiverStream::new(outgoing)).await?.into_inner();
    Ok(Stream { requests, responses })
}

fn told(status: Status) -> String {
    format!("{}: {}", status.code(), status.message())
}
