//! Why a message came to a server more than once: each further copy needs a reason of its own.

use anyhow::Result;
use posthorn_api::trace::v1::EventKind;
use tokio::time::Instant;

use super::found::Arrival;
use crate::Api;

/// Harm that was done.
#[derive(Debug, Clone)]
pub struct Blow {
    /// What it was.
    pub name: String,
    /// When it began.
    pub from: Instant,
    /// When it was over.
    pub to: Instant,
    /// What it can cost.
    pub leases: Leases,
}

/// Whether a blow can cost a relay its lease of a transfer that it has begun, so that another begins it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// It must not.
    Kept,
    /// As long as it lasts.
    Lost,
    /// And until those who are cut off have noticed.
    LostUntilNoticed,
}

/// As long as nobody notices a connection that leads nowhere: 20 s without a word, 10 s for an answer; and a lease.
const UNNOTICED: std::time::Duration = std::time::Duration::from_secs(40);
/// What was sent before a blow may be read after it.
const UNREAD: std::time::Duration = std::time::Duration::from_millis(500);

impl Blow {
    /// It fell after one copy and before the next.
    pub(super) fn lies_between(&self, one: Instant, next: Instant) -> bool {
        let until = match self.leases {
            Leases::Kept => return false,
            Leases::Lost => self.to + UNREAD,
            Leases::LostUntilNoticed => self.to + UNNOTICED,
        };
        self.from <= next && one <= until
    }
}

/// The reasons for all copies but the first, one for each. `Err`: how many have none.
pub(super) async fn reasons(
    address: &str,
    copies: &[Arrival],
    api: &Api,
    blows: &[Blow],
) -> Result<Result<Vec<String>, usize>> {
    let mut times: Vec<Instant> = copies.iter().map(|arrival| arrival.at).collect();
    times.sort_unstable();
    let (mut reasons, mut without) = (Vec::new(), 0);
    for pair in times.windows(2) {
        match blows.iter().find(|blow| blow.lies_between(pair[0], pair[1])) {
            Some(blow) => reasons.push(blow.name.clone()),
            None => without += 1,
        }
    }
    let uncertain = if without > 0 { uncertain_attempts(address, &copies[0].copy.id, api).await? } else { 0 };
    reasons.extend(std::iter::repeat_n("an uncertain attempt".to_owned(), without.min(uncertain)));
    Ok(if without > uncertain { Err(without - uncertain) } else { Ok(reasons) })
}

/// Attempts of which it was said that the final dot was sent and no answer came.
async fn uncertain_attempts(address: &str, id: &str, api: &Api) -> Result<usize> {
    let events = api.trace(id).await?.events;
    Ok(events.iter().filter(|e| e.kind() == EventKind::Uncertain && e.recipient == address).count())
}
