//! Whether each message came as often as its answer promised.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use posthorn_api::trace::v1::EventKind;
use posthorn_testkit::smtp_server::SmtpServer;
use tokio::time::Instant;

use crate::Api;
use crate::load::{Answer, SENDER, Sent, To};

/// Harm that was done.
#[derive(Debug, Clone)]
pub struct Blow {
    /// What it was.
    pub name: String,
    /// When it began.
    pub from: Instant,
    /// When all was well again.
    pub to: Instant,
}

/// What came where.
#[derive(Debug, Default)]
pub struct Found {
    /// Copies by mailbox and subject.
    mailboxes: BTreeMap<(String, String), usize>,
    /// Copies by address elsewhere and subject.
    elsewhere: BTreeMap<(String, String), Vec<Arrival>>,
    /// Notices to the sender, by the subject of what they return.
    bounces: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Instant,
    /// The server said 250, and was heard or not.
    accepted: bool,
}

impl Found {
    /// Looks into all mailboxes, and at what the server elsewhere has got.
    pub async fn collect(api: &Api, server: &SmtpServer) -> Result<Self> {
        let mut found = Self::default();
        let mut mailboxes: Vec<&str> = ALL.iter().flat_map(|to| to.mailboxes()).copied().collect();
        mailboxes.sort_unstable();
        mailboxes.dedup();
        for mailbox in mailboxes {
            for message in api.list(mailbox).await? {
                *found.mailboxes.entry((mailbox.to_owned(), message.subject)).or_default() += 1;
            }
        }
        for notice in api.list(SENDER).await? {
            let raw = api.read(SENDER, notice).await?.raw;
            let subject = subjects(&raw).find(|subject| subject.starts_with("load "));
            *found.bounces.entry(subject.unwrap_or_else(|| "no message of ours".into())).or_default() += 1;
        }
        for message in server.messages() {
            let subject = subjects(&message.content).next().unwrap_or_default();
            let arrival = Arrival { at: message.at.into(), accepted: message.was_accepted() };
            for to in &message.rcpt {
                let to = to.split('>').next().unwrap_or_default().trim_start_matches('<').to_owned();
                found.elsewhere.entry((to, subject.clone())).or_default().push(arrival);
            }
        }
        Ok(found)
    }

    fn in_mailbox(&self, mailbox: &str, subject: &str) -> usize {
        self.mailboxes.get(&(mailbox.to_owned(), subject.to_owned())).copied().unwrap_or_default()
    }

    fn at(&self, address: &str, subject: &str) -> &[Arrival] {
        self.elsewhere.get(&(address.to_owned(), subject.to_owned())).map_or(&[], Vec::as_slice)
    }

    fn bounces(&self, subject: &str) -> usize {
        self.bounces.get(subject).copied().unwrap_or_default()
    }

    /// All subjects that came anywhere.
    fn subjects(&self) -> impl Iterator<Item = &String> {
        let placed = self.mailboxes.keys().chain(self.elsewhere.keys()).map(|(_, subject)| subject);
        placed.chain(self.bounces.keys())
    }
}

const ALL: [To; 5] = [To::Local, To::Remote, To::Mixed, To::List, To::Nobody];

fn subjects(content: &[u8]) -> impl Iterator<Item = String> {
    let text = String::from_utf8_lossy(content).into_owned();
    let found = text.lines().filter_map(|line| line.strip_prefix("Subject: "));
    found.map(|subject| subject.trim().to_owned()).collect::<Vec<_>>().into_iter()
}

/// A line of the table.
#[derive(Debug, Default)]
struct Row {
    answers: BTreeMap<&'static str, usize>,
    in_mailboxes: usize,
    elsewhere: usize,
    again_uncertain: usize,
    again_after_a_blow: usize,
    bounces: usize,
}

/// Prints the table, and fails on one message that is missing, doubled, or there though it was refused.
pub async fn account(sent: &[Sent], found: &Found, api: &Api, blows: &[Blow]) -> Result<()> {
    let mut wrong = Vec::new();
    let mut rows: BTreeMap<(To, bool), Row> = BTreeMap::new();
    for message in sent {
        let row = rows.entry((message.to, message.large)).or_default();
        *row.answers.entry(message.answer.name()).or_default() += 1;
        row.bounces += found.bounces(&message.subject);
        wrong.extend(check(message, found, row));
        for address in message.to.elsewhere() {
            let copies = found.at(address, &message.subject);
            let Some(again) = copies.len().checked_sub(1).filter(|again| *again > 0) else { continue };
            match why_again(message, copies, api, blows).await? {
                Some(Why::Uncertain) => row.again_uncertain += again,
                Some(Why::Blow) => row.again_after_a_blow += again,
                None => {
                    wrong.push(format!("{message:?} came {} times to {address} for no reason", again + 1))
                }
            }
        }
    }
    let known: std::collections::BTreeSet<_> = sent.iter().map(|message| &message.subject).collect();
    wrong.extend(found.subjects().filter(|s| !known.contains(s)).map(|s| format!("nobody sent {s:?}")));
    print(&rows);
    ensure!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// What is wrong with the number of copies of a message.
fn check(message: &Sent, found: &Found, row: &mut Row) -> Vec<String> {
    let mut wrong = Vec::new();
    let (must, may) = match message.answer {
        Answer::Accepted(_) => (true, true),
        Answer::Unknown => (false, true),
        Answer::Leaving | Answer::NotNow(_) | Answer::Broken(_) => (false, false),
        Answer::Refused(_) => {
            wrong.push(format!("{message:?}: nothing is wrong with it"));
            (false, false)
        }
    };
    for mailbox in message.to.mailboxes() {
        let copies = found.in_mailbox(mailbox, &message.subject);
        row.in_mailboxes += copies;
        if copies > usize::from(may) || copies < usize::from(must) {
            wrong.push(format!("{message:?} is {copies} times in the mailbox of {mailbox}"));
        }
    }
    for address in message.to.elsewhere() {
        let copies = found.at(address, &message.subject);
        row.elsewhere += copies.len();
        let accepted = copies.iter().filter(|copy| copy.accepted).count();
        if accepted < usize::from(must) || (!copies.is_empty() && !may) {
            wrong.push(format!("{message:?} came {} times, {accepted} accepted, to {address}", copies.len()));
        }
    }
    let (bounces, bounced) = (found.bounces(&message.subject), message.to == To::Nobody);
    if bounces > usize::from(may && bounced) || bounces < usize::from(must && bounced) {
        wrong.push(format!("{message:?} was bounced {bounces} times"));
    }
    wrong
}

/// Why a message came to a server more than once.
enum Why {
    /// The final dot was sent and no answer came.
    Uncertain,
    /// Somebody was hit between one copy and the next, and could not say what had become of the first.
    Blow,
}

async fn why_again(message: &Sent, copies: &[Arrival], api: &Api, blows: &[Blow]) -> Result<Option<Why>> {
    if let Answer::Accepted(id) = &message.answer {
        let events = api.trace(id).await?.events;
        if events.iter().any(|event| event.kind() == EventKind::Uncertain) {
            return Ok(Some(Why::Uncertain));
        }
    }
    let (Some(first), Some(last)) = (copies.iter().map(|c| c.at).min(), copies.iter().map(|c| c.at).max())
    else {
        return Ok(None);
    };
    Ok(blows.iter().any(|blow| blow.from <= last && first <= blow.to).then_some(Why::Blow))
}

#[expect(clippy::print_stdout, reason = "the figures are for whoever runs the test")]
fn print(rows: &BTreeMap<(To, bool), Row>) {
    const ANSWERS: [&str; 6] =
        ["accepted", "421", "refused for now", "refused for good", "cut before its end", "not known"];
    println!(
        "\n{:<14} {:>9} {:>5} {:>8} {:>8} {:>6} {:>8} | {:>9} {:>9} {:>10} {:>8} {:>7}",
        "to",
        "accepted",
        "421",
        "refused",
        "for good",
        "cut",
        "unknown",
        "mailboxes",
        "elsewhere",
        "uncertain",
        "by blow",
        "bounces"
    );
    for ((to, large), row) in rows {
        let name = format!("{to:?}{}", if *large { ", large" } else { "" });
        let answers = ANSWERS.map(|answer| row.answers.get(answer).copied().unwrap_or_default());
        let [accepted, leaving, later, never, cut, unknown] = answers;
        println!(
            "{name:<14} {accepted:>9} {leaving:>5} {later:>8} {never:>8} {cut:>6} {unknown:>8} | {:>9} {:>9} {:>10} {:>8} {:>7}",
            row.in_mailboxes, row.elsewhere, row.again_uncertain, row.again_after_a_blow, row.bounces
        );
    }
    println!("(uncertain, by blow: copies elsewhere beyond the first, by what explains them)\n");
}
