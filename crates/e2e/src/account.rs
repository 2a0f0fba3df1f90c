//! Whether each message came as it was and as often as its answer promised.

mod again;
mod found;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

pub use again::{Blow, Leases};
pub use found::Found;

use crate::Api;
use crate::load::{Answer, SENDER, Sent};
use found::{Copy, digest};
use table::Table;

/// Prints the table, and fails on one message that is missing, changed, doubled, or there though it was refused.
pub async fn account(sent: &[Sent], found: &Found, api: &Api, blows: &[Blow]) -> Result<()> {
    let mut table = Table::default();
    let mut wrong = check(sent, found, &mut table);
    for message in sent {
        for address in message.to.elsewhere() {
            let copies = found.at(&address, &message.subject);
            if copies.len() < 2 {
                continue;
            }
            match again::reasons(&address, copies, api, blows).await? {
                Ok(reasons) => table.again(message, reasons),
                Err(without) => {
                    let times: Vec<_> = copies.iter().map(|arrival| arrival.copy.at).collect();
                    wrong.push(format!(
                        "{message:?} came to {address} at {times:?}, {without} times for no reason"
                    ));
                }
            }
        }
    }
    table.print();
    ensure!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// What is wrong, but for copies elsewhere beyond the first.
fn check(sent: &[Sent], found: &Found, table: &mut Table) -> Vec<String> {
    let mut wrong = found.wrong.clone();
    let mut somewhere: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (place, subject) in found.places() {
        somewhere.entry(subject).or_default().push(place);
    }
    for message in sent {
        let places = somewhere.remove(message.subject.as_str()).unwrap_or_default();
        let mut case = Case { message, found, table, wrong: Vec::new() };
        case.check(&places);
        wrong.extend(case.wrong.into_iter().map(|what| format!("{message:?} {what}")));
    }
    wrong
        .extend(somewhere.iter().map(|(subject, at)| format!("nobody sent {subject:?}, which is at {at:?}")));
    wrong
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
        let message = self.message;
        self.count();
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
        if kept {
            self.check_places();
            self.check_notices();
        }
        let (mut expected, notices) = (Vec::new(), message.to.notices());
        if kept {
            expected.extend([message.to.mailboxes(), message.to.elsewhere()].concat());
            expected.extend((!notices.is_empty()).then(|| SENDER.to_owned()));
        }
        let astray: Vec<_> = places.iter().filter(|p| !expected.iter().any(|e| e == *p)).collect();
        if !astray.is_empty() {
            self.wrong.push(format!("is where it should not be: {astray:?}"));
        }
    }

    fn count(&mut self) {
        let (message, found) = (self.message, self.found);
        let here = message
            .to
            .mailboxes()
            .iter()
            .map(|to| found.in_mailbox(to, &message.subject).len())
            .sum::<usize>();
        let there =
            message.to.elsewhere().iter().map(|to| found.at(to, &message.subject).len()).sum::<usize>();
        let row = self.table.row(message);
        row.in_mailboxes += here;
        row.elsewhere += there;
        row.notices += found.notices(&message.subject).len();
    }

    /// All who must have it do.
    fn check_places(&mut self) {
        let (message, found) = (self.message, self.found);
        let mut copies: Vec<(String, &Copy)> = Vec::new();
        for to in message.to.mailboxes() {
            let here = found.in_mailbox(&to, &message.subject);
            if here.len() != 1 {
                self.wrong.push(format!("is {} times in the mailbox of {to}", here.len()));
            }
            copies.extend(here.iter().map(|copy| (to.clone(), copy)));
        }
        for to in message.to.elsewhere() {
            let there = found.at(&to, &message.subject);
            if !there.iter().any(|arrival| arrival.accepted) {
                self.wrong.push(format!("came {} times to {to}, and was never accepted there", there.len()));
            }
            copies.extend(there.iter().map(|arrival| (to.clone(), &arrival.copy)));
        }
        self.check_copies(&copies);
    }

    /// The sender was told what it must be told, once.
    fn check_notices(&mut self) {
        let mut told = self.found.notices(&self.message.subject).to_vec();
        let mut due = self.message.to.notices();
        for notices in [&mut told, &mut due] {
            notices.sort_by_key(|notice| format!("{notice:?}"));
        }
        if told != due {
            self.wrong.push(format!("was told of as {told:?}, not {due:?}"));
        }
    }

    /// Each has all of its bytes, and the id that was answered.
    fn check_copies(&mut self, copies: &[(String, &Copy)]) {
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
}
