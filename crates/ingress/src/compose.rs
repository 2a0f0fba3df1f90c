//! A message out of its parts: RFC 5322 with MIME (RFC 2045).
//!
//! No text of a caller may end a header and begin another: control characters are refused in every field that goes
//! into one, naming the field.

use mail_builder::mime::MimePart;
use posthorn_api::error::invalid;
use posthorn_api::parse_field;
use posthorn_api::submission::v1::{Header, Mailbox, StructuredMessage};
use posthorn_mail::Address;
use tonic::Status;

mod fields;
mod parts;

/// Fields that the parts make, or the servers on the way: a caller cannot give them as a header of its own.
const RESERVED: [&str; 12] = [
    "From",
    "To",
    "Cc",
    "Bcc",
    "Reply-To",
    "Subject",
    "MIME-Version",
    "Received",
    "Return-Path",
    "Delivered-To",
    "Resent-Bcc",
    "X-Posthorn-Trace",
];

/// Fields that stand once at most (RFC 5322 §3.6).
const SINGLE: [&str; 5] = ["Date", "Message-ID", "In-Reply-To", "References", "Sender"];

/// The longest display name and file name.
const NAME_LIMIT: usize = 255;

/// A mailbox of a header.
#[derive(Debug)]
struct Named {
    address: Address,
    name: String,
}

/// Writes the message, without Date and Message-ID unless the caller gave them.
pub(crate) fn compose(message: &StructuredMessage) -> Result<Vec<u8>, Status> {
    let from = message.from.as_ref().ok_or_else(|| invalid("message.from", "is missing"))?;
    let mut out = String::new();
    fields::mailboxes(&mut out, "From", &[named("message.from", from)?]);
    for (name, field, list) in [
        ("To", "message.to", &message.to),
        ("Cc", "message.cc", &message.cc),
        ("Reply-To", "message.reply_to", &message.reply_to),
    ] {
        let list = list.iter().enumerate().map(|(at, mailbox)| named(&format!("{field}[{at}]"), mailbox));
        fields::mailboxes(&mut out, name, &list.collect::<Result<Vec<_>, _>>()?);
    }
    if !message.subject.is_empty() {
        check_text("message.subject", &message.subject)?;
        fields::text(&mut out, "Subject", &message.subject);
    }
    headers(&mut out, &message.headers)?;
    out.push_str("MIME-Version: 1.0\r\n");
    let mut out = out.into_bytes();
    write_body(parts::body(message)?, &mut out);
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}

/// The addresses of a list of mailboxes, for an envelope that names no recipients of its own.
pub(crate) fn addresses(field: &str, list: &[Mailbox]) -> Result<Vec<Address>, Status> {
    let address =
        |(at, mailbox): (usize, &Mailbox)| parse_field(&format!("{field}[{at}].address"), &mailbox.address);
    list.iter().enumerate().map(address).collect()
}

fn named(field: &str, mailbox: &Mailbox) -> Result<Named, Status> {
    let name = mailbox.name.trim();
    check_text(&format!("{field}.name"), name)?;
    if name.chars().count() > NAME_LIMIT {
        return Err(invalid(format!("{field}.name"), "is longer than 255 characters"));
    }
    let address = parse_field(&format!("{field}.address"), &mailbox.address)?;
    Ok(Named { address, name: name.to_owned() })
}

fn headers(out: &mut String, headers: &[Header]) -> Result<(), Status> {
    let mut seen: Vec<String> = Vec::new();
    for (at, header) in headers.iter().enumerate() {
        let wrong = |reason: &str| invalid(format!("message.headers[{at}].name"), reason);
        let name = header.name.as_str();
        let is_name = !name.is_empty() && name.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b':');
        if !is_name || name.len() > 76 {
            return Err(wrong("is no name of a header"));
        }
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        if RESERVED.iter().any(is)
            || name.get(..8).is_some_and(|start| is(&start) || start.eq_ignore_ascii_case("content-"))
        {
            return Err(wrong("is made by Posthorn"));
        }
        if SINGLE.iter().any(is) && seen.contains(&name.to_ascii_lowercase()) {
            return Err(wrong("may stand only once"));
        }
        let value = format!("message.headers[{at}].value");
        check_text(&value, &header.value)?;
        // What a header of the caller's own means is not known: an encoded word might change it (RFC 2047 §5).
        if fields::is_plain(&header.value) && !fields::fits(name, &header.value) {
            return Err(invalid(value, "has a word too long for a line of 998 octets (RFC 5322 §2.1.1)"));
        }
        fields::text(out, name, &header.value);
        seen.push(name.to_ascii_lowercase());
    }
    Ok(())
}

/// Refuses what could end a line.
fn check_text(field: &str, text: &str) -> Result<(), Status> {
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        None => Ok(()),
        Some(c) => Err(invalid(field, format!("has a control character (U+{:04X})", u32::from(c)))),
    }
}

fn write_body(body: MimePart<'_>, out: &mut Vec<u8>) {
    body.write_part(out).expect("a Vec takes all that is written to it");
}

#[cfg(test)]
mod tests;
