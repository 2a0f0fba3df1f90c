//! What is told of outcomes besides to the queue: logs and metrics.

use posthorn_api::work::v1::Item;
use posthorn_mail::{Outcome, RemoteServer, Status, Verdict};

/// Tells of the outcomes of a message; the span says which message it is.
pub(crate) fn note(item: &Item, outcomes: &[Outcome]) {
    for (recipient, outcome) in item.recipients.iter().zip(outcomes) {
        let (result, status) = describe(&outcome.verdict);
        metrics::counter!("posthorn_relay_outcomes_total", "result" => result).increment(1);
        let remote = outcome.remote.as_ref();
        tracing::info!(
            result,
            code = status.map(Status::code),
            enhanced = status.map(|status| tracing::field::display(status.enhanced())),
            remote = remote.map(|remote| remote.host.as_str()),
            address = remote.map(|remote| remote.address.as_str()),
            tls = remote.map(|remote| remote.tls.as_str()),
            recipient_no = recipient.recipient_no,
            "transfer {result}"
        );
        // The server's words often repeat the address.
        tracing::debug!(
            recipient_no = recipient.recipient_no,
            recipient = recipient.address,
            status = status.map(tracing::field::display),
            "the server's words"
        );
    }
}

/// Tells of a server that could take nothing.
pub(crate) fn note_failure(remote: &RemoteServer, status: &Status) {
    tracing::info!(remote = remote.host, address = remote.address, %status, "a server takes nothing now");
}

fn describe(verdict: &Verdict) -> (&'static str, Option<&Status>) {
    match verdict {
        Verdict::Delivered { status, .. } => ("delivered", Some(status)),
        Verdict::Deferred { status, .. } => ("deferred", Some(status)),
        Verdict::Failed(status) => ("failed", Some(status)),
        Verdict::Uncertain(status) => ("uncertain", Some(status)),
        Verdict::Reroute(_) => ("rerouted", None),
    }
}
