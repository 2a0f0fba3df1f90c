//! A report out of bytes.

use mail_parser::{HeaderName, Message, MessageParser, MessagePart, MimeHeaders, PartType};
use posthorn_mail::Address;
use time::OffsetDateTime;

use crate::fields::Fields;
use crate::{ParseError, Report, Returned};

/// Reads a `multipart/report` with a delivery status.
pub(crate) fn report(bytes: &[u8]) -> Result<Report, ParseError> {
    let message = MessageParser::new().parse(bytes).ok_or(ParseError::NotAReport)?;
    if !is_type(message.root_part(), "multipart", "report") {
        return Err(ParseError::NotAReport);
    }
    let parts = parts(&message);
    let status = parts
        .iter()
        .find(|part| {
            is_type(part, "message", "delivery-status") || is_type(part, "message", "global-delivery-status")
        })
        .ok_or(ParseError::NotAReport)?;
    let blocks = Fields::blocks(&String::from_utf8_lossy(status.contents()));
    let (about, recipients) = blocks.split_first().ok_or(ParseError::NotAReport)?;
    if recipients.is_empty() {
        return Err(ParseError::Missing("Final-Recipient"));
    }
    let (_, reporting_mta) = about.typed("Reporting-MTA").ok_or(ParseError::Missing("Reporting-MTA"))?;
    Ok(Report {
        from: address(&message, HeaderName::From).ok_or(ParseError::Malformed("From"))?,
        to: address(&message, HeaderName::To).ok_or(ParseError::Malformed("To"))?,
        message_id: message.message_id().ok_or(ParseError::Missing("Message-ID"))?.to_owned(),
        date: message
            .date()
            .and_then(|date| OffsetDateTime::from_unix_timestamp(date.to_timestamp()).ok())
            .ok_or(ParseError::Missing("Date"))?,
        reporting_mta: reporting_mta.parse().map_err(|_| ParseError::Malformed("Reporting-MTA"))?,
        arrival_date: about.date("Arrival-Date"),
        envelope_id: about.get("Original-Envelope-Id").map(str::to_owned),
        about: about.get("X-Posthorn-Message-Id").and_then(|id| id.parse().ok()),
        recipients: recipients.iter().map(Fields::recipient).collect::<Result<_, _>>()?,
        returned: parts.iter().find_map(|part| returned(part, bytes)).unwrap_or(Returned::None),
    })
}

/// The parts of the report itself, not of what comes back.
fn parts<'a, 'x>(message: &'a Message<'x>) -> Vec<&'a MessagePart<'x>> {
    let ids = message.root_part().sub_parts().unwrap_or_default();
    ids.iter().filter_map(|&id| message.part(id)).collect()
}

fn is_type(part: &MessagePart<'_>, kind: &str, subtype: &str) -> bool {
    part.content_type().is_some_and(|have| {
        have.ctype().eq_ignore_ascii_case(kind)
            && have.subtype().is_some_and(|have| have.eq_ignore_ascii_case(subtype))
    })
}

fn returned(part: &MessagePart<'_>, bytes: &[u8]) -> Option<Returned> {
    if is_type(part, "text", "rfc822-headers") || is_type(part, "message", "global-headers") {
        return Some(Returned::Headers(part.contents().to_vec()));
    }
    let PartType::Message(message) = &part.body else { return None };
    // Encoded messages (message/global may be) are decoded into one of their own; others lie in our bytes.
    let whole = bytes.get(part.raw_body_offset() as usize..part.raw_end_offset() as usize);
    Some(Returned::Full(whole.unwrap_or(&message.raw_message).to_vec()))
}

/// The address of a header: what stands in its angle brackets, or alone; or the name of an empty group (RFC 6857
/// §3.1.8).
fn address(message: &Message<'_>, header: HeaderName<'static>) -> Option<Address> {
    let raw = message.header_raw(header.clone())?.replace("\r\n", "");
    let raw = raw.trim();
    let bracketed = raw.strip_suffix('>').unwrap_or_default();
    // A "<" may stand within quotes: the right one is that after which an address stands.
    let mut candidates =
        bracketed.match_indices('<').map(|(at, _)| &bracketed[at + 1..]).chain(std::iter::once(raw));
    if let Some(address) = candidates.find_map(|text| text.parse().ok()) {
        return Some(address);
    }
    let header = message.header(header)?.as_address()?;
    match header.first().and_then(|mailbox| mailbox.address()) {
        Some(address) => address.parse().ok(),
        None => header.as_group()?.first()?.name.as_deref()?.trim().parse().ok(),
    }
}
