//! What the outcomes of a delivery do. No I/O here.

use posthorn_mail::{Outcome, Verdict};

use super::effects::Effects;
use crate::message::{Change, Recipient};
use crate::schedule::{Key, Kind};

/// Applies the outcomes of an item's recipients; those that the ledger does not have waiting are passed over.
pub(crate) fn apply(
    effects: &mut Effects<'_>,
    key: Key,
    kind: Kind,
    waiting: &[Recipient],
    outcomes: Vec<(u32, Outcome)>,
    jitter: f64,
) {
    let Some(moment) = effects.moment(key.message, jitter) else { return };
    for (no, outcome) in outcomes {
        let Some(recipient) = waiting.iter().find(|r| r.no == no) else { continue };
        if effects.changed.contains_key(&(key.message, no)) {
            continue;
        }
        let mut recipient = recipient.clone();
        let unavailable = matches!(outcome.verdict, Verdict::Deferred { destination_unavailable: true, .. });
        let spoke = outcome.remote.is_some();
        let change = recipient.tried(outcome.verdict, outcome.remote, &moment);
        if kind == Kind::Remote {
            match change {
                // All that waits for the destination waits for its first retry.
                Change::Deferred(at) if unavailable => effects.learn(key.lane, Some(at)),
                Change::GaveUp if unavailable => {}
                _ if spoke => effects.learn(key.lane, None),
                _ => {}
            }
        }
        count(kind, &change);
        effects.after(key.message, recipient, &change);
    }
}

fn count(kind: Kind, change: &Change) {
    let outcome = match change {
        Change::Delivered { .. } => "delivered",
        Change::Deferred(_) => "deferred",
        Change::Uncertain(_) => "uncertain",
        Change::Rerouted(_) => "rerouted",
        Change::Failed => "failed",
        Change::GaveUp => "given_up",
        Change::Nothing => return,
    };
    metrics::counter!("posthorn_queue_outcomes_total", "kind" => kind.name(), "outcome" => outcome)
        .increment(1);
}
