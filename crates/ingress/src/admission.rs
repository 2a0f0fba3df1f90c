//! Who may send to whom.

use std::time::Duration;

use posthorn_api::routing::v1 as wire;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_mail::{EnhancedStatus, Recipient, ReversePath, Status};
use posthorn_service::Channel;

/// What the router says about a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is one of ours.
    Local,
    /// It is in a domain of others.
    Relay,
    /// It is not to be had, or not now.
    Refused(Status),
}

/// Whether mail to a recipient is taken from this client. Ours are taken from everybody, others only from those for
/// whom mail is relayed (an open relay carries the world's spam).
pub(crate) fn decide(place: Place, may_relay: bool) -> Verdict {
    match place {
        Place::Local => Ok(()),
        Place::Relay if may_relay => Ok(()),
        Place::Relay => Err(Status::new(550, EnhancedStatus::new(5, 7, 1), "Relaying is not allowed")),
        Place::Refused(status) => Err(status),
    }
}

/// Whether mail to a recipient is taken, and if not, why.
pub(crate) type Verdict = Result<(), Status>;

/// The router did not answer: nothing is known, so nothing is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Away;

impl Away {
    /// What an SMTP client is told.
    pub(crate) fn status(self) -> Status {
        Status::new(451, EnhancedStatus::new(4, 4, 3), "Cannot look the recipient up, try again later")
    }
}

/// Asks the router.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    router: RoutingServiceClient<Channel>,
    timeout: Duration,
}

impl Admission {
    pub(crate) fn new(router: Channel, timeout: Duration) -> Self {
        Self { router: RoutingServiceClient::new(router), timeout }
    }

    /// One verdict a recipient, in order.
    pub(crate) async fn verify(
        &self,
        sender: &ReversePath,
        recipients: &[Recipient],
        may_relay: bool,
    ) -> Result<Vec<Verdict>, Away> {
        let places = self.places(sender, recipients).await.map_err(|status| {
            tracing::warn!(code = ?status.code(), reason = status.message(), "the router does not answer");
            metrics::counter!("posthorn_ingress_router_failures_total").increment(1);
            Away
        })?;
        let verdicts: Vec<_> = places.into_iter().map(|place| decide(place, may_relay)).collect();
        for (recipient, verdict) in recipients.iter().zip(&verdicts) {
            if let Err(status) = verdict {
                tracing::debug!(recipient = %recipient.address, %sender, %status, "a recipient is refused");
                let code = status.code().to_string();
                metrics::counter!("posthorn_ingress_recipients_refused_total", "code" => code).increment(1);
            }
        }
        Ok(verdicts)
    }

    /// Whose API key this is; UNAUTHENTICATED when it is nobody's.
    pub(crate) async fn verify_key(&self, key: &str) -> Result<wire::VerifyKeyResponse, tonic::Status> {
        let mut router = self.router.clone();
        let call = router.verify_key(wire::VerifyKeyRequest { key: key.to_owned() });
        let answer = tokio::time::timeout(self.timeout, call)
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??;
        Ok(answer.into_inner())
    }

    async fn places(
        &self,
        sender: &ReversePath,
        recipients: &[Recipient],
    ) -> Result<Vec<Place>, tonic::Status> {
        let request = wire::VerifyRequest {
            sender: sender.to_string(),
            recipients: recipients.iter().map(|recipient| recipient.address.to_string()).collect(),
        };
        let mut router = self.router.clone();
        let answer = tokio::time::timeout(self.timeout, router.verify(request))
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??
            .into_inner();
        if answer.results.len() != recipients.len() {
            return Err(tonic::Status::internal("the router answered for another number of recipients"));
        }
        answer.results.into_iter().map(place).collect()
    }
}

fn place(result: wire::VerifyResult) -> Result<Place, tonic::Status> {
    use wire::verify_result::Result as Wire;
    match result.result {
        Some(Wire::Local(_)) => Ok(Place::Local),
        Some(Wire::Relay(_)) => Ok(Place::Relay),
        Some(Wire::Refused(status)) => Ok(Place::Refused(status.try_into()?)),
        None => Err(tonic::Status::internal("the router answered nothing for a recipient")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_may_send_only_to_us() {
        let unknown = Status::new(550, EnhancedStatus::new(5, 1, 1), "No such user");
        for (place, may_relay, code) in [
            (Place::Local, false, None),
            (Place::Local, true, None),
            (Place::Relay, false, Some(550)),
            (Place::Relay, true, None),
            (Place::Refused(unknown.clone()), true, Some(550)),
            (Place::Refused(Away.status()), false, Some(451)),
        ] {
            let verdict = decide(place.clone(), may_relay);
            assert_eq!(verdict.err().map(|status| status.code()), code, "{place:?} {may_relay}");
        }
    }
}
