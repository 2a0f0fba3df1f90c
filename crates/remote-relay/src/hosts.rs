//! Asking the router where a domain's mail goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use posthorn_api::error::is_temporary;
use posthorn_api::routing::v1::resolve_destination_response::Result as Answer;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_api::routing::v1::{ResolveDestinationRequest, ResolveDestinationResponse};
use posthorn_mail::{EnhancedStatus, Status};
use posthorn_service::{Channel, within};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::candidates::{Candidate, candidates};

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(30);
/// The pause between questions to a router that is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a domain's mail goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the first of these that takes it.
    Servers(Arc<[Candidate]>),
    /// To a mailbox here: the router is to decide again.
    Local,
    /// Nowhere, for good or for now.
    Refused(Status),
}

/// The router; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    client: RoutingServiceClient<Channel>,
    config: Arc<Config>,
}

impl Hosts {
    pub(crate) fn new(router: Channel, config: Arc<Config>) -> Self {
        Self { client: RoutingServiceClient::new(router), config }
    }

    /// The way of a domain's mail. A router that is away is asked again for `router_patience`, or until `shutdown`.
    pub(crate) async fn find(&mut self, domain: &str, shutdown: &CancellationToken) -> Way {
        let give_up = Instant::now() + self.config.router_patience;
        loop {
            let request = ResolveDestinationRequest { domain: domain.to_owned() };
            let error = match within(QUESTION, self.client.resolve_destination(request)).await {
                Ok(response) => return self.way(response.into_inner()),
                Err(error) => error,
            };
            if !is_temporary(&error) || Instant::now() >= give_up || shutdown.is_cancelled() {
                tracing::warn!(domain, reason = error.message(), "the router does not say where mail goes");
                return Way::Refused(no_answer());
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    fn way(&self, response: ResolveDestinationResponse) -> Way {
        match response.result {
            Some(Answer::Hosts(hosts)) => match candidates(&hosts, &self.config) {
                Ok(found) => Way::Servers(found.into()),
                Err(status) => Way::Refused(status),
            },
            Some(Answer::Local(_)) => Way::Local,
            Some(Answer::Refused(status)) => Way::Refused(status.try_into().unwrap_or_else(|_| no_answer())),
            None => Way::Refused(no_answer()),
        }
    }
}

/// RFC 3463 §3.5: directory server failure.
fn no_answer() -> Status {
    Status::new(451, EnhancedStatus::new(4, 4, 3), "where this mail goes cannot be found out now")
}
