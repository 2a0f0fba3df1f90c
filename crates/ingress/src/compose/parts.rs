//! The body of a message as MIME parts.

use std::fmt::Write as _;

use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use posthorn_api::error::invalid;
use posthorn_api::submission::v1::{Attachment, StructuredMessage};
use tonic::Status;

use super::{NAME_LIMIT, check_text};

/// The tree: `mixed( alternative( text, related( html, inline… ) ), attachments… )`, without the levels that would
/// have one branch.
pub(super) fn body(message: &StructuredMessage) -> Result<MimePart<'_>, Status> {
    let text = text_part("message.text", "text/plain", &message.text)?;
    let html = text_part("message.html", "text/html", &message.html)?;
    let (mut inline, mut attached) = (Vec::new(), Vec::new());
    for (at, attachment) in message.attachments.iter().enumerate() {
        let part = attachment_part(&format!("message.attachments[{at}]"), attachment)?;
        // Where there is no HTML to show it in, an inline part is an attachment like others.
        if attachment.content_id.is_empty() || html.is_none() { &mut attached } else { &mut inline }
            .push(part);
    }
    let html = html.map(|html| together("multipart/related", html, inline));
    let readable = match (text, html) {
        (Some(text), Some(html)) => Some(together("multipart/alternative", text, vec![html])),
        (text, html) => text.or(html),
    };
    match readable {
        Some(readable) => Ok(together("multipart/mixed", readable, attached)),
        None if attached.is_empty() => {
            Err(invalid("message.text", "there is neither text nor html nor an attachment"))
        }
        None => Ok(MimePart::new("multipart/mixed", attached)),
    }
}

/// The first part, with the others if there are any.
fn together<'x>(kind: &'static str, first: MimePart<'x>, others: Vec<MimePart<'x>>) -> MimePart<'x> {
    if others.is_empty() {
        return first;
    }
    MimePart::new(kind, BodyPart::Multipart(std::iter::once(first).chain(others).collect()))
}

fn text_part(field: &str, kind: &'static str, text: &str) -> Result<Option<MimePart<'static>>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.contains('\0') {
        return Err(invalid(field, "has a NUL"));
    }
    // However the caller ends its lines; the builder writes CRLF for each LF.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    Ok(Some(MimePart::new(kind, text)))
}

fn attachment_part<'x>(field: &str, attachment: &'x Attachment) -> Result<MimePart<'x>, Status> {
    check_text(&format!("{field}.filename"), &attachment.filename)?;
    if attachment.filename.chars().count() > NAME_LIMIT {
        return Err(invalid(format!("{field}.filename"), "is longer than 255 characters"));
    }
    let kind = match attachment.content_type.as_str() {
        "" => "application/octet-stream",
        kind if is_media_type(kind) => kind,
        _ => return Err(invalid(format!("{field}.content_type"), "is no type that an attachment can have")),
    };
    let inline = !attachment.content_id.is_empty();
    // A type as it stands makes the builder choose base64: the octets come out as they went in.
    let mut part = MimePart::raw(attachment.content.as_ref())
        .header("Content-Type", Raw::new(kind))
        .header("Content-Disposition", Raw::new(disposition(inline, &attachment.filename)));
    if inline {
        let id = attachment.content_id.trim_start_matches('<').trim_end_matches('>');
        let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic() && !b"<>".contains(&b));
        if !is_id || id.len() > NAME_LIMIT {
            return Err(invalid(format!("{field}.content_id"), "is no content id"));
        }
        part = part.header("Content-ID", Raw::new(format!("<{id}>")));
    }
    Ok(part)
}

/// `type/subtype`, maybe with parameters. A multipart has no octets of its own.
fn is_media_type(text: &str) -> bool {
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let Some((kind, subtype)) = kind.trim_end().split_once('/') else { return false };
    text.len() <= NAME_LIMIT
        && is_token(kind)
        && is_token(subtype)
        && !kind.eq_ignore_ascii_case("multipart")
        && parameters.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// Content-Disposition with the file's name (RFC 2183, RFC 2231).
fn disposition(inline: bool, filename: &str) -> String {
    let mut text = String::from(if inline { "inline" } else { "attachment" });
    // A blank in a quoted name is where the builder may fold, which would put a tab into the name.
    let is_simple = filename.bytes().all(|b| b.is_ascii_graphic() || b == b' ' && filename.len() < 25);
    if filename.is_empty() {
        return text;
    }
    if is_simple {
        let name = filename.replace('\\', "\\\\").replace('"', "\\\"");
        write!(text, "; filename=\"{name}\"").expect("a String takes all that is written to it");
        return text;
    }
    for (at, piece) in percent_encoded(filename).iter().enumerate() {
        write!(text, "; filename*{at}*={piece}").expect("a String takes all that is written to it");
    }
    text
}

/// The name in pieces that each fit on a line and hold whole characters (RFC 2231 §4.1).
fn percent_encoded(name: &str) -> Vec<String> {
    let mut pieces = vec![String::from("utf-8''")];
    for c in name.chars() {
        let mut encoded = String::new();
        if c.is_ascii_alphanumeric() || "-._".contains(c) {
            encoded.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(encoded, "%{byte:02X}").expect("a String takes all that is written to it");
            }
        }
        match pieces.last_mut() {
            Some(last) if last.len() + encoded.len() <= 30 => last.push_str(&encoded),
            _ => pieces.push(encoded),
        }
    }
    pieces
}
