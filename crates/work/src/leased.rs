//! What a worker gets: items, each of which comes to one end.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use posthorn_api::work::v1::{
    DeliveryReport, Item, ItemReport, RecipientOutcome, ReleasedItem, item_report::Report,
};
use posthorn_mail::{MessageId, Outcome};
use tokio::sync::{mpsc, watch};

use crate::leases::LeaseEnd;

/// What came of an item.
#[derive(Debug)]
pub(crate) enum Ended {
    Reported(ItemReport),
    GivenBack(ReleasedItem),
    /// The worker of an item of the batch with this token fell over.
    Lost(Bytes),
}

impl Ended {
    /// Names its batch.
    pub(crate) fn token(&self) -> &Bytes {
        match self {
            Self::Reported(item) => &item.token,
            Self::GivenBack(item) => &item.token,
            Self::Lost(token) => token,
        }
    }
}

/// Items under one lease.
#[derive(Debug)]
pub struct Batch {
    /// Where remote work goes.
    pub destination: String,
    /// The items.
    pub items: Vec<Leased>,
}

/// One message, with those of its recipients that this work is for. It is ours until it is reported or, by being
/// dropped, given back.
#[derive(Debug)]
pub struct Leased {
    /// What is to be done.
    pub item: Item,
    /// It is not in the queue's ledger yet: nothing may come of it before it is known to be.
    pub early: Option<Kept>,
    lease: Arc<Lease>,
    told: bool,
}

/// Whether an early item has come into the queue's ledger.
#[derive(Debug, Clone)]
pub struct Kept(pub(crate) watch::Receiver<Option<bool>>);

impl Kept {
    /// Waits until it is known; a stream that broke will not tell any more.
    pub async fn known(&mut self) -> bool {
        self.0.wait_for(Option::is_some).await.is_ok_and(|kept| *kept == Some(true))
    }
}

/// What the items of a batch have in common.
#[derive(Debug)]
struct Lease {
    token: Bytes,
    end: LeaseEnd,
    ended: mpsc::UnboundedSender<Ended>,
}

impl Batch {
    pub(crate) fn new(
        batch: posthorn_api::work::v1::Batch,
        end: LeaseEnd,
        ended: mpsc::UnboundedSender<Ended>,
        early: Option<Kept>,
    ) -> Self {
        let lease = Arc::new(Lease { token: batch.token, end, ended });
        let leased = |item| Leased { item, early: early.clone(), lease: lease.clone(), told: false };
        Self { destination: batch.destination, items: batch.items.into_iter().map(leased).collect() }
    }
}

impl Leased {
    /// The id, for logs; `None` when it is none, which the queue never sends.
    pub fn message_id(&self) -> Option<MessageId> {
        self.item.message_id.as_ref().try_into().ok()
    }

    /// Whether the lease has ended and others may have the item by now: it should not be begun any more.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.lease.end.is_over(now)
    }

    /// Reports what came of it.
    pub fn report(mut self, report: Report) {
        let (token, message_id) = self.names();
        self.tell(Ended::Reported(ItemReport { token, message_id, report: Some(report) }));
    }

    /// Reports one outcome per recipient, in the item's order.
    pub fn report_outcomes(self, outcomes: Vec<Outcome>) {
        let recipients = self.item.recipients.iter().zip(outcomes);
        let recipients = recipients.map(|(recipient, outcome)| RecipientOutcome {
            recipient_no: recipient.recipient_no,
            outcome: Some(outcome.into()),
        });
        let report = DeliveryReport { recipients: recipients.collect() };
        self.report(Report::Delivery(report));
    }

    fn names(&self) -> (Bytes, Bytes) {
        (self.lease.token.clone(), self.item.message_id.clone())
    }

    fn tell(&mut self, ended: Ended) {
        self.told = true;
        // The session may have stopped waiting: then the lease ends by itself.
        let _ = self.lease.ended.send(ended);
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let (token, message_id) = self.names();
        if std::thread::panicking() {
            let message_id = self.message_id().map(tracing::field::display);
            tracing::error!(
                message_id,
                "the work on a message fell over; it falls due again when its lease ends"
            );
            self.tell(Ended::Lost(token));
        } else {
            self.tell(Ended::GivenBack(ReleasedItem { token, message_id }));
        }
    }
}
