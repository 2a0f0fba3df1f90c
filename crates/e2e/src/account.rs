//! Whether each message came as it was and as often as its answer promised.

mod again;
mod found;
mod table;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

pub use again::{Blow, Leases};
pub use found::Found;

use crate::Api;
use crate::load::{Answer, Sent};
use found::{Copy, digest};
use table::Table;

/// Prints the table, and fails on one message that is missing, changed, doubled, or there though it was refused.
pub async fn account(sent: &[Sent], found: &Found, api: &Api, blows: &[Blow]) -> Result<()> {
    let mut wrong = found.wrong.clone();
    let mut somewhere: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (place, subject) in found.places() {
        somewhere.entry(subject).or_default().push(place);
    }
    let mut table = Table::default();
    for message in sent {
        let places = somewhere.remove(message.subject.as_str()).unwrap_or_default();
        let mut case = Case { message, found, table: &mut table, wrong: Vec::new() };
        case.check(&places);
        case.check_again(api, blows).await?;
        wrong.extend(case.wrong.into_iter().map(|what| format!("{message:?} {what}")));
    }
    wrong.extend(somewhere.iter().map(|(subject, at)| format!("nobody sent {subject:?}, which is at {at:?}")));
    table.print();
    ensure!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// A message, and what became of it.
struct Case<'a> {
    message: &'a Sent,
    found: &'a Found,
    table: &'a mut Table,
    wrong: Vec<String>,
}

impl Case<'_> {
    /// Compares what must be with what is; `places` are all where it is.
    fn check(&mut self, places: &[&str]) {
        let (message, found) = (self.message, self.found);
        let kept = match &message.answer {
            Answer::Accepted(_) => true,
            // All have it, or nobody.
            Answer::Unknown => !places.is_empty(),
            Answer::Leaving | Answer::NotNow(_) | Answer::Broken(_) => false,
            Answer::Refused(_) => {
                self.wrong.push("was refused, and nothing is wrong with it".into());
                false
            }
        };
        let (mailboxes, elsewhere, mut notices) =
            (message.to.mailboxes(), message.to.elsewhere(), message.to.notices());
        let row = self.table.row(message);
        row.in_mailboxes += mailboxes.iter().map(|to| found.in_mailbox(to, &message.subject).len()).sum::<usize>();
        row.elsewhere += elsewhere.iter().map(|to| found.at(to, &message.subject).len()).sum::<usize>();
        row.notices += found.notices(&message.subject).len();
        if !kept {
            if !places.is_empty() {
                self.wrong.push(format!("was not taken, and is at {places:?}"));
            }
            return;
        }
        let mut copies: Vec<(&str, &Copy)> = Vec::new();
        for to in &mailboxes {
            let here = found.in_mailbox(to, &message.subject);
            copies.extend(here.iter().map(|copy| (to.as_str(), copy)));
            if here.len() != 1 {
                self.wrong.push(format!("is {} times in the mailbox of {to}", here.len()));
            }
        }
        for to in &elsewhere {
            let there = found.at(to, &message.subject);
            copies.extend(there.iter().map(|arrival| (to.as_str(), &arrival.copy)));
            if !there.iter().any(|arrival| arrival.accepted) {
                self.wrong.push(format!("came {} times to {to}, and was never accepted there", there.len()));
            }
        }
        self.check_copies(&copies);
        let mut told = found.notices(&message.subject).to_vec();
        told.sort_by_key(|notice| format!("{notice:?}"));
        notices.sort_by_key(|notice| format!("{notice:?}"));
        if told != notices {
            self.wrong.push(format!("was told of as {told:?}, not {notices:?}"));
        }
        let expected = mailboxes.iter().chain(&elsewhere).map(String::as_str).chain(
            // The notices, which were compared above.
            (!notices.is_empty()).then_some(crate::load::SENDER),
        );
        let expected: Vec<&str> = expected.collect();
        let astray: Vec<_> = places.iter().filter(|place| !expected.contains(place)).collect();
        if !astray.is_empty() {
            self.wrong.push(format!("is at {astray:?}, too"));
        }
    }

    /// Each has all of its bytes, and the id that was answered.
    fn check_copies(&mut self, copies: &[(&str, &Copy)]) {
        let (message, as_sent) = (self.message, digest(&self.message.content()));
        let id = match &message.answer {
            Answer::Accepted(id) => Some(id),
            _ => copies.first().map(|(_, copy)| &copy.id),
        };
        for (place, copy) in copies {
            if copy.digest != as_sent {
                self.wrong.push(format!("is not what it was at {place}"));
            }
            if Some(&copy.id) != id {
                self.wrong.push(format!("has the id {} at {place}", copy.id));
            }
            let late = copy.at.duration_since(message.at).unwrap_or_default();
            self.table.late(message, place, late);
        }
    }

    /// Each copy elsewhere beyond the first needs a reason.
    async fn check_again(&mut self, api: &Api, blows: &[Blow]) -> Result<()> {
        for address in self.message.to.elsewhere() {
            let copies = self.found.at(&address, &self.message.subject);
            if copies.len() < 2 {
                continue;
            }
            match again::reasons(&address, copies, api, blows).await? {
                Ok(reasons) => self.table.again(self.message, reasons),
                Err(without) => {
                    let times = copies.iter().map(|copy| copy.copy.at).collect::<Vec<_>>();
                    self.wrong.push(format!(
                        "came {} times to {address}, {without} of them for no reason: {times:?}",
                        copies.len()
                    ));
                }
            }
        }
        Ok(())
    }
}
