//! Hears from each replica of the router when the directory changes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use posthorn_api::routing::v1 as wire;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_service::{Replicas, connect_to};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::remembered::{Remembered, Silence};

/// The pause before a replica that does not tell is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Hears from the replicas as they come and go. Never ends by itself.
pub(crate) async fn hear(mut replicas: Replicas, remembered: Arc<Remembered>) {
    let mut hearing: HashMap<SocketAddr, AbortOnDropHandle<()>> = HashMap::new();
    loop {
        let found = replicas.borrow_and_update().clone();
        // Where none is known, one that is not may be asked.
        let _nobody = found.is_empty().then(|| remembered.silence());
        hearing.retain(|replica, _| found.contains(replica));
        for replica in found {
            hearing.entry(replica).or_insert_with(|| {
                let silence = remembered.silence();
                AbortOnDropHandle::new(tokio::spawn(hear_from(replica, remembered.clone(), silence)))
            });
        }
        if replicas.changed().await.is_err() {
            // It is the one that there is.
            return std::future::pending().await;
        }
    }
}

async fn hear_from(replica: SocketAddr, remembered: Arc<Remembered>, silence: Silence) {
    let mut silence = Some(silence);
    loop {
        let Err(status) = listen(replica, &remembered, &mut silence).await;
        silence.get_or_insert_with(|| remembered.silence());
        let reason = status.message();
        tracing::debug!(%replica, reason, "this router does not tell of changes: it is asked each time");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ends the silence with the first that is told.
async fn listen(
    replica: SocketAddr,
    remembered: &Remembered,
    silence: &mut Option<Silence>,
) -> Result<Infallible, Status> {
    let channel = connect_to(replica).map_err(|error| Status::internal(error.to_string()))?;
    let (confirm, confirmed) = mpsc::channel(1);
    let told = RoutingServiceClient::new(channel).watch_directory(ReceiverStream::new(confirmed)).await?;
    let mut told = told.into_inner();
    while let Some(wire::WatchDirectoryResponse { generation }) = told.message().await? {
        remembered.forget();
        *silence = None;
        let forgotten = wire::WatchDirectoryRequest { generation };
        confirm.send(forgotten).await.map_err(|_| Status::unavailable("the stream was closed"))?;
    }
    Err(Status::unavailable("the stream has ended"))
}
