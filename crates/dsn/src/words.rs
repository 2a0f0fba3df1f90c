//! The first part: what happened, for a person who has never heard of SMTP.

use std::fmt::Write as _;

use posthorn_mail::{Address, EnhancedStatus};

use crate::fields::date;
use crate::{Action, RecipientReport, Report, Returned};

/// The order in which a reader wants to hear: bad news first.
const ORDER: [Action; 5] =
    [Action::Failed, Action::Delayed, Action::Relayed, Action::Delivered, Action::Expanded];

/// The subject of the notice; `original` is that of the message.
pub(crate) fn subject(report: &Report, original: Option<&str>) -> String {
    let worst = ORDER.into_iter().find(|&action| report.recipients.iter().any(|r| r.action == action));
    let what = match worst {
        Some(Action::Failed) => "Undeliverable",
        Some(Action::Delayed) => "Delivery delayed",
        Some(Action::Relayed) => "Handed on",
        Some(Action::Delivered) => "Delivered",
        Some(Action::Expanded) => "Sent on to a list",
        None => "Delivery report",
    };
    match original {
        Some(subject) if subject.chars().count() > 150 => {
            format!("{what}: {}...", subject.chars().take(147).collect::<String>())
        }
        Some(subject) => format!("{what}: {subject}"),
        None => format!("{what}: your message"),
    }
}

/// The text, lines with `\n`.
pub(crate) fn text(report: &Report, subject: Option<&str>) -> String {
    let mut out = format!("This is the mail system at {}.\n", report.reporting_mta.to_unicode());
    for action in ORDER {
        let told: Vec<_> = report.recipients.iter().filter(|r| r.action == action).collect();
        if told.is_empty() {
            continue;
        }
        let _ = write!(out, "\n{}\n", heading(action, told.len() == 1));
        for recipient in told {
            write_recipient(&mut out, recipient);
        }
    }
    out.push_str("\nThe message:\n");
    if let Some(subject) = subject {
        wrap(&mut out, "    Subject:  ", "              ", &one_line(subject));
    }
    if let Some(at) = report.arrival_date {
        let _ = writeln!(out, "    Accepted: {}", date(at));
    }
    if let Some(id) = report.about {
        let _ = writeln!(out, "    Id:       {id}");
    }
    match report.returned {
        Returned::Full(_) => out.push_str("\nIt is attached.\n"),
        Returned::Headers(_) => out.push_str("\nIts headers are attached.\n"),
        Returned::None => {}
    }
    out
}

fn heading(action: Action, one: bool) -> &'static str {
    match (action, one) {
        (Action::Failed, true) => {
            "Your message could not be delivered to this recipient.\nIt will not be tried again."
        }
        (Action::Failed, false) => {
            "Your message could not be delivered to these recipients.\nIt will not be tried again."
        }
        (Action::Delayed, true) => {
            "Your message has not been delivered to this recipient yet. It is tried again by\n\
             itself: there is no need to send it once more."
        }
        (Action::Delayed, false) => {
            "Your message has not been delivered to these recipients yet. It is tried again\n\
             by itself: there is no need to send it once more."
        }
        (Action::Relayed, true) => {
            "Your message was handed to the mail server of this recipient, which does not\n\
             report whether it arrives."
        }
        (Action::Relayed, false) => {
            "Your message was handed to the mail servers of these recipients, which do not\n\
             report whether it arrives."
        }
        (Action::Delivered, true) => "Your message was delivered to this recipient.",
        (Action::Delivered, false) => "Your message was delivered to these recipients.",
        (Action::Expanded, true) => "Your message was sent on to all for whom this address stands.",
        (Action::Expanded, false) => "Your message was sent on to all for whom these addresses stand.",
    }
}

fn write_recipient(out: &mut String, recipient: &RecipientReport) {
    let _ = writeln!(out, "\n  {}", shown(&recipient.final_recipient));
    if let Some(original) = other_original(recipient) {
        let _ = writeln!(out, "    You wrote to {original}, which leads there.");
    }
    if matches!(recipient.action, Action::Failed | Action::Delayed) {
        write_reason(out, recipient);
    }
    if let (Some(said), true) = (&recipient.diagnostic, recipient.is_quoted()) {
        let host =
            recipient.remote_mta.as_deref().map_or_else(String::new, |host| format!(" {}", one_line(host)));
        let _ = writeln!(out, "    The server{host} said:");
        wrap(out, "      ", "      ", &one_line(&said.quoted()));
    }
    match (recipient.action, recipient.will_retry_until) {
        (Action::Failed, _) if recipient.status.class() == 4 => {
            wrap(out, "    ", "    ", "It was tried again until it was given up.");
            wrap(out, "    ", "    ", advice(recipient.status));
        }
        (Action::Failed, _) if says_why(recipient) => wrap(out, "    ", "    ", advice(recipient.status)),
        (Action::Delayed, Some(until)) => {
            let _ = writeln!(out, "    It is tried until {}.", date(until));
            out.push_str("    If it cannot be delivered by then, you will be told.\n");
        }
        _ => {}
    }
}

/// Why: what the code means, and Posthorn's own words.
fn write_reason(out: &mut String, recipient: &RecipientReport) {
    let own = recipient.diagnostic.as_ref().filter(|_| !recipient.is_quoted());
    let own = own.map(|said| one_line(said.text())).filter(|words| !words.is_empty());
    let own = own.map(|words| match recipient.remote_mta.as_deref().map(one_line) {
        Some(host) if !words.contains(&host) => format!("{words} [{host}]"),
        _ => words,
    });
    if let Some(words) = own.as_ref().filter(|_| !says_why(recipient)) {
        return wrap(out, "    ", "    ", &format!("{words} ({})", recipient.status));
    }
    wrap(out, "    ", "    ", &format!("{} ({}).", meaning(recipient.status), recipient.status));
    if let Some(words) = own {
        wrap(out, "    ", "    ", &words);
    }
}

/// Whether the code says more than "no": an operator's bounce has a reason in words alone.
fn says_why(recipient: &RecipientReport) -> bool {
    recipient.is_quoted() || recipient.status.subject() != 0
}

/// An address as people write it. Domains keep their ASCII form where the local part is ASCII: so it was typed.
fn shown(address: &Address) -> String {
    match address.domain() {
        Some(domain) if !address.is_ascii() => format!("{}@{}", address.local(), domain.to_unicode()),
        _ => address.to_string(),
    }
}

/// The address that the sender wrote to, when it is another than the one that the attempt was for.
fn other_original(recipient: &RecipientReport) -> Option<String> {
    let original = recipient.original_recipient.as_deref()?;
    let address = original.split_once(';').map_or(original, |(_, address)| address).trim();
    let last = &recipient.final_recipient;
    let same = [last.to_string(), shown(last)].iter().any(|last| address.eq_ignore_ascii_case(last));
    (!same && !address.is_empty()).then(|| one_line(address))
}

/// What a code means (RFC 3463 §3), in a sentence without its full stop.
fn meaning(status: EnhancedStatus) -> &'static str {
    match (status.subject(), status.detail()) {
        // Greylisting, a look-up that failed: a "no" that may yet become a "yes".
        (1 | 7, _) if status.class() == 4 => "The server does not take the message for now",
        (1, 0 | 1 | 6) => "There is no such mailbox",
        (1, 2) => "The domain of the address does not exist or takes no mail",
        (1, 3) => "The address is not a valid one",
        (1, 10) => "The domain of the address declares that it takes no mail",
        (1, 7 | 8) => "The server does not take mail from your address",
        (2, 1) => "The mailbox is disabled and takes no mail",
        (2, 2) => "The mailbox is full",
        (2, 3) | (3, 4) => "The message is larger than the server takes",
        (2, 4) => "The address is a list that could not be resolved",
        (2, _) => "There is trouble with the mailbox",
        (3, 1) => "The server has no room left",
        (3, 2) => "The server takes no mail at the moment",
        (3, _) => "The server cannot take the message",
        (4, 1) => "The server does not answer",
        (4, 2) => "The connection to the server broke",
        (4, 3 | 4) => "No server could be found for the domain of the address",
        (4, 5) => "The server is too busy",
        (4, 6) => "The message goes round in a loop",
        (4, 7) => "The message could not be delivered in the time set for it",
        (4, _) => "The server could not be reached",
        (5, 3) => "The message has too many recipients for the server",
        (5, _) => "The servers did not understand each other",
        (6, 7..=9) => "The address needs a server that supports international addresses",
        (6, _) => "The server cannot take a message in this format",
        (7, _) => "The server refuses the message",
        _ if status.class() == 4 => "The server could not take the message yet",
        _ => "The server refused the message",
    }
}

const AGAIN: &str =
    "You may send the message again later. If it fails again, ask the recipient's postmaster.";

/// What a sender can do about a failure.
fn advice(status: EnhancedStatus) -> &'static str {
    match (status.subject(), status.detail()) {
        (1 | 7, _) if status.class() == 4 => AGAIN,
        (1, 7 | 8) | (7, _) => {
            "If you think that it should be let through, ask the postmaster of the recipient's domain."
        }
        (1, _) => "Look for a mistake in the address, and send the message again to the right one.",
        (2, 1 | 2) => "Tell the recipient in another way, or send the message again later.",
        (2, 3) | (3, 4) => "Make the message smaller, or pass large files on in another way.",
        (5, 3) => "Send the message again to fewer recipients at a time.",
        (6, _) => "Send the message again as plain text, or to another address of the recipient.",
        (4, 6) => "Tell the postmaster of the recipient's domain.",
        _ => AGAIN,
    }
}

/// Without line breaks and other controls, so that no one else's words pass for ours.
fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}

/// Writes a text in lines of at most 74 characters where it has spaces.
fn wrap(out: &mut String, first: &str, later: &str, text: &str) {
    let mut line = String::from(first);
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > 74 {
            out.push_str(&line);
            out.push('\n');
            line = String::from(later);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
