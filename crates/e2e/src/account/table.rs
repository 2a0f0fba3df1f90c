//! The table that is printed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::load::{Sent, To};

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<(To, bool), Row>,
    /// Copies elsewhere beyond the first, by what explains them.
    again: BTreeMap<String, usize>,
    latest: Option<(Duration, String)>,
}

#[derive(Debug, Default)]
pub(super) struct Row {
    answers: BTreeMap<&'static str, usize>,
    pub(super) in_mailboxes: usize,
    pub(super) elsewhere: usize,
    pub(super) again: usize,
    pub(super) notices: usize,
}

impl Table {
    /// The row of a message, in which its answer is counted.
    pub(super) fn row(&mut self, message: &Sent) -> &mut Row {
        let row = self.rows.entry((message.to, message.large)).or_default();
        *row.answers.entry(message.answer.name()).or_default() += 1;
        row
    }

    pub(super) fn again(&mut self, message: &Sent, reasons: Vec<String>) {
        self.rows.entry((message.to, message.large)).or_default().again += reasons.len();
        for reason in reasons {
            *self.again.entry(reason).or_default() += 1;
        }
    }

    /// A message came so long after its answer.
    pub(super) fn late(&mut self, message: &Sent, place: &str, late: Duration) {
        if self.latest.as_ref().is_none_or(|(latest, _)| late > *latest) {
            self.latest = Some((late, format!("{:?} ({:?}) to {place}", message.subject, message.to)));
        }
    }

    #[expect(clippy::print_stdout, reason = "the figures are for whoever runs the test")]
    pub(super) fn print(&self) {
        const ANSWERS: [&str; 6] =
            ["accepted", "421", "refused for now", "refused for good", "cut before its end", "not known"];
        println!(
            "\n{:<18} {:>9} {:>5} {:>8} {:>8} {:>6} {:>8} | {:>9} {:>9} {:>6} {:>8}",
            "to",
            "accepted",
            "421",
            "refused",
            "for good",
            "cut",
            "unknown",
            "mailboxes",
            "elsewhere",
            "again",
            "notices"
        );
        for ((to, large), row) in &self.rows {
            let name = format!("{to:?}{}", if *large { ", large" } else { "" });
            let answers = ANSWERS.map(|answer| row.answers.get(answer).copied().unwrap_or_default());
            let [accepted, leaving, later, never, cut, unknown] = answers;
            println!(
                "{name:<18} {accepted:>9} {leaving:>5} {later:>8} {never:>8} {cut:>6} {unknown:>8} | {:>9} {:>9} {:>6} {:>8}",
                row.in_mailboxes, row.elsewhere, row.again, row.notices
            );
        }
        for (reason, count) in &self.again {
            println!("again elsewhere: {count} by {reason}");
        }
        if let Some((late, what)) = &self.latest {
            println!("the latest: {what}, {:.1} s after its answer", late.as_secs_f64());
        }
        println!();
    }
}
