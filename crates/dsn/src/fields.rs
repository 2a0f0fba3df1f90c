//! The second part: the fields of `message/delivery-status` (RFC 3464 §2), written and read.

use mail_parser::DateTime;
use posthorn_mail::{Address, EnhancedStatus, Status};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::encode::{from_utf8_xtext, header, printable, utf8_xtext};
use crate::{Action, ParseError, RecipientReport, Report};

/// RFC 5322 §3.3, in UTC.
const DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] +0000"
);

/// A time as mail writes it.
pub(crate) fn date(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(DATE).expect("a date has all that the format asks for")
}

/// Reads a time as mail writes it.
pub(crate) fn read_date(text: &str) -> Option<OffsetDateTime> {
    let date = DateTime::parse_rfc822(text)?;
    OffsetDateTime::from_unix_timestamp(date.to_timestamp()).ok()
}

/// The fields of a report: those of the message, then those of each recipient, with empty lines between.
pub(crate) fn write(report: &Report) -> String {
    let mut out = String::new();
    header(&mut out, "Reporting-MTA", &format!("dns; {}", report.reporting_mta));
    if let Some(id) = &report.envelope_id {
        header(&mut out, "Original-Envelope-Id", &printable(id));
    }
    if let Some(id) = report.about {
        header(&mut out, "X-Posthorn-Message-Id", &id.to_string());
    }
    if let Some(at) = report.arrival_date {
        header(&mut out, "Arrival-Date", &date(at));
    }
    for recipient in &report.recipients {
        out.push_str("\r\n");
        write_recipient(&mut out, recipient);
    }
    out
}

fn write_recipient(out: &mut String, recipient: &RecipientReport) {
    if let Some(original) = &recipient.original_recipient {
        let (kind, address) = original.split_once(';').unwrap_or(("rfc822", original));
        let address = if address.is_ascii() { printable(address) } else { utf8_xtext(address.trim()) };
        header(out, "Original-Recipient", &format!("{}; {address}", printable(kind)));
    }
    let address = recipient.final_recipient.to_string();
    let typed = if address.is_ascii() {
        format!("rfc822; {address}")
    } else {
        // RFC 6533 §3: the form that message/delivery-status may hold.
        format!("utf-8; {}", utf8_xtext(&address))
    };
    header(out, "Final-Recipient", &typed);
    header(out, "Action", recipient.action.keyword());
    header(out, "Status", &recipient.status.to_string());
    // RFC 3464 §2.3.5: the server that reported. One that said nothing is named in Posthorn's own words alone.
    if let Some(host) = recipient.remote_mta.as_ref().filter(|_| recipient.is_quoted()) {
        header(out, "Remote-MTA", &format!("dns; {}", printable(host)));
    }
    if let Some(diagnostic) = &recipient.diagnostic {
        // RFC 3464 §2.3.6: "smtp" is for what an SMTP server said, not for Posthorn's own words.
        let kind = if recipient.is_quoted() { "smtp" } else { "X-Posthorn" };
        header(out, "Diagnostic-Code", &format!("{kind}; {}", printable(&diagnostic.quoted())));
    }
    if let Some(at) = recipient.last_attempt {
        header(out, "Last-Attempt-Date", &date(at));
    }
    if let Some(at) = recipient.will_retry_until {
        header(out, "Will-Retry-Until", &date(at));
    }
}

impl Action {
    /// The word of RFC 3464 §2.3.3.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }

    fn from_keyword(word: &str) -> Option<Self> {
        [Self::Failed, Self::Delayed, Self::Delivered, Self::Relayed, Self::Expanded]
            .into_iter()
            .find(|action| action.keyword().eq_ignore_ascii_case(word))
    }
}

/// A block of fields: those of the message, or of one recipient.
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The blocks of a delivery status, unfolded; lines that are no field are passed over.
    pub(crate) fn blocks(text: &str) -> Vec<Self> {
        let mut blocks = vec![Self(Vec::new())];
        for line in text.lines() {
            let fields = &mut blocks.last_mut().expect("there is one from the start").0;
            if line.trim().is_empty() {
                if !fields.is_empty() {
                    blocks.push(Self(Vec::new()));
                }
            } else if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push_str(line.trim_end());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        blocks.retain(|block| !block.0.is_empty());
        blocks
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The value of a field that is `type; value`: both.
    pub(crate) fn typed(&self, name: &str) -> Option<(&str, &str)> {
        let (kind, value) = self.get(name)?.split_once(';')?;
        Some((kind.trim(), value.trim()))
    }

    pub(crate) fn date(&self, name: &str) -> Option<OffsetDateTime> {
        read_date(self.get(name)?)
    }

    /// What a block says of its recipient.
    pub(crate) fn recipient(&self) -> Result<RecipientReport, ParseError> {
        let (kind, address) = self.typed("Final-Recipient").ok_or(ParseError::Missing("Final-Recipient"))?;
        let address: Address = decode(kind, address)
            .trim_matches(['<', '>'])
            .parse()
            .map_err(|_| ParseError::Malformed("Final-Recipient"))?;
        let action = self.get("Action").ok_or(ParseError::Missing("Action"))?;
        // Some write "failed (...)".
        let action = action.split([' ', '(']).next().and_then(Action::from_keyword);
        let status = self.get("Status").ok_or(ParseError::Missing("Status"))?;
        let status = status.split([' ', '(']).next().and_then(|word| word.parse::<EnhancedStatus>().ok());
        Ok(RecipientReport {
            final_recipient: address,
            original_recipient: self
                .typed("Original-Recipient")
                .map(|(kind, address)| format!("{kind};{}", decode(kind, address))),
            action: action.ok_or(ParseError::Malformed("Action"))?,
            status: status.ok_or(ParseError::Malformed("Status"))?,
            diagnostic: self.typed("Diagnostic-Code").and_then(|(kind, words)| diagnostic(kind, words)),
            remote_mta: self.typed("Remote-MTA").map(|(_, host)| host.to_owned()),
            last_attempt: self.date("Last-Attempt-Date"),
            will_retry_until: self.date("Will-Retry-Until"),
        })
    }
}

/// An address of a type: `utf-8` is in the form of RFC 6533 §3.
fn decode(kind: &str, address: &str) -> String {
    if kind.eq_ignore_ascii_case("utf-8") { from_utf8_xtext(address) } else { address.to_owned() }
}

/// `550 5.1.1 no such user`, or `550 no such user`.
fn diagnostic(kind: &str, words: &str) -> Option<Status> {
    let status = if kind.eq_ignore_ascii_case("smtp") {
        Status::said
    } else if kind.eq_ignore_ascii_case("x-posthorn") {
        Status::received
    } else {
        return None;
    };
    let code = words.get(..3)?.parse().ok()?;
    let rest = words.get(3..)?.trim_start_matches(['-', ' ']);
    let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
    match first.parse::<EnhancedStatus>() {
        Ok(enhanced) => status(code, Some(enhanced), text),
        Err(_) => status(code, None, rest),
    }
    .ok()
}
