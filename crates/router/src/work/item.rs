//! Items of work, from the wire and to it.

use posthorn_api::mail::v1::Status as WireStatus;
use posthorn_api::work::v1 as wire;
use posthorn_mail::{Address, ReversePath, Status};

use crate::decide::{Decision, Target};
use crate::refusal;
use crate::router::Asked;

/// The recipients of an item that can be read, and what to report of those that cannot.
#[derive(Debug, Default)]
pub(crate) struct Recipients {
    pub(crate) numbers: Vec<u32>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) malformed: Vec<wire::RouteResult>,
}

impl Recipients {
    /// Reads an item's recipients.
    pub(crate) fn of(item: &wire::Item) -> Self {
        let mut recipients = Self::default();
        for recipient in &item.recipients {
            let sender = recipient.sender.as_deref().unwrap_or(&item.sender);
            // A sender that cannot be read is kept as it is: here it only matters whether it is the null sender.
            let sender = match sender {
                "" => ReversePath::Null,
                text => text.parse().unwrap_or_else(|_| unreadable_sender()),
            };
            match recipient.address.parse::<Address>() {
                Ok(address) => {
                    recipients.numbers.push(recipient.recipient_no);
                    recipients.asked.push(Asked { sender, recipient: address });
                }
                Err(reason) => recipients.malformed.push(malformed(recipient, &reason)),
            }
        }
        recipients
    }

    /// The report: the decisions in the order of `asked`, and the malformed.
    pub(crate) fn report(self, decided: Vec<Vec<Target>>) -> wire::RouteReport {
        let results = self.numbers.into_iter().zip(decided).map(|(recipient_no, targets)| {
            wire::RouteResult { recipient_no, targets: targets.into_iter().map(target).collect() }
        });
        wire::RouteReport { results: results.chain(self.malformed).collect() }
    }

    /// A report that puts all recipients off.
    pub(crate) fn put_off(self, status: &Status) -> wire::RouteReport {
        let put_off = self.asked.iter().map(|asked| vec![Target::refused(&asked.recipient, status.clone())]);
        let put_off = put_off.collect();
        self.report(put_off)
    }
}

fn unreadable_sender() -> ReversePath {
    "unreadable@invalid".parse().unwrap_or(ReversePath::Null)
}

fn malformed(recipient: &wire::ItemRecipient, reason: &posthorn_mail::AddressError) -> wire::RouteResult {
    let target = wire::RouteTarget {
        address: recipient.address.clone(),
        reason: reason.to_string(),
        sender: None,
        decision: Some(wire::route_target::Decision::Fail(refusal::malformed().into())),
    };
    wire::RouteResult { recipient_no: recipient.recipient_no, targets: vec![target] }
}

/// As the queue is told.
pub(crate) fn target(target: Target) -> wire::RouteTarget {
    use wire::route_target::Decision as Wire;
    let decision = match target.decision {
        Decision::Local { account_id, tenant_id, quota_bytes } => Wire::Local(wire::LocalTarget {
            account_id: account_id.as_bytes().to_vec().into(),
            tenant_id: tenant_id.to_string(),
            quota_bytes,
            folder: String::new(),
        }),
        Decision::Remote { destination, host } => Wire::Remote(wire::RemoteTarget {
            destination: destination.to_string(),
            domain: host.to_string(),
        }),
        Decision::Fail(status) => Wire::Fail(WireStatus::from(status)),
        Decision::Later(status) => Wire::Later(WireStatus::from(status)),
    };
    wire::RouteTarget {
        address: target.address.to_string(),
        reason: target.reason,
        sender: target.sender.map(|sender| sender.to_string()),
        decision: Some(decision),
    }
}
