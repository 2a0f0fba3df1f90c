//! The third part: what comes back of the message.

use mail_parser::MessageParser;

use crate::Returned;
use crate::encode::quoted_printable;

/// The third part as it is written: its own headers, and its bytes.
pub(crate) struct Part {
    pub(crate) header: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Returned {
    /// The third part; `None` when nothing comes back.
    pub(crate) fn part(&self) -> Option<Part> {
        match self {
            Self::Full(content) if may_travel(content) => {
                let header = if content.is_ascii() {
                    "Content-Type: message/rfc822\r\n"
                } else if is_international(header_section(content)) {
                    // RFC 6532 §3.7: UTF-8 in the headers makes it another type.
                    "Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n"
                } else {
                    // RFC 2046 §5.2.1: no other encoding is allowed for it.
                    "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n"
                };
                Some(Part { header, body: content.clone() })
            }
            Self::Full(content) | Self::Headers(content) => Some(headers_part(header_section(content))),
            Self::None => None,
        }
    }

    /// What the message says of itself in its headers: its subject and its Message-ID.
    pub(crate) fn subject_and_id(&self) -> (Option<String>, Option<String>) {
        let content = match self {
            Self::Full(content) | Self::Headers(content) => header_section(content),
            Self::None => return (None, None),
        };
        let Some(message) = MessageParser::new().parse_headers(content) else { return (None, None) };
        let subject = message.subject().filter(|subject| !subject.trim().is_empty()).map(str::to_owned);
        let id = message
            .message_id()
            .filter(|id| id.len() < 250 && id.bytes().all(|b| b.is_ascii_graphic() && !b"<>".contains(&b)));
        (subject, id.map(str::to_owned))
    }
}

/// Whether a server without BINARYMIME can carry these bytes (RFC 5321 §4.5.3.1.6, §2.3.8): lines of at most 998
/// octets that end in CRLF, without NUL.
pub(crate) fn may_travel(content: &[u8]) -> bool {
    content.split_inclusive(|&b| b == b'\n').all(|line| {
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        text.len() <= 998 && !text.iter().any(|b| matches!(b, 0 | b'\r' | b'\n'))
    })
}

/// The header section, without the empty line that ends it.
pub(crate) fn header_section(content: &[u8]) -> &[u8] {
    let mut end = 0;
    for line in content.split_inclusive(|&b| b == b'\n') {
        if matches!(line, b"\r\n" | b"\n") {
            break;
        }
        end += line.len();
    }
    &content[..end]
}

/// Octets of another charset make a broken header, not an international one.
fn is_international(headers: &[u8]) -> bool {
    !headers.is_ascii() && std::str::from_utf8(headers).is_ok()
}

/// RFC 6522 §4: headers are 7-bit, or quoted-printable where they must be.
fn headers_part(headers: &[u8]) -> Part {
    if headers.is_ascii() && may_travel(headers) {
        return Part { header: "Content-Type: text/rfc822-headers\r\n", body: headers.to_vec() };
    }
    let header = if std::str::from_utf8(headers).is_ok() {
        "Content-Type: text/rfc822-headers; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
    } else {
        // RFC 1428 §3.
        "Content-Type: text/rfc822-headers; charset=unknown-8bit\r\nContent-Transfer-Encoding: quoted-printable\r\n"
    };
    Part { header, body: quoted_printable(headers).into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_server_carries_comes_back_whole() {
        for (content, whole) in [
            (&b"Subject: a\r\n\r\nb\r\n"[..], true),
            (b"Subject: a\r\n\r\nno end", true),
            ("Subject: a\r\n\r\nü\r\n".as_bytes(), true),
            (b"Subject: a\n\nb\n", false),
            (b"Subject: a\r\n\r\nb\rc\r\n", false),
            (b"Subject: a\r\n\r\n\0\r\n", false),
            (&[b'x'; 999], false),
            (&[b'x'; 998], true),
        ] {
            assert_eq!(may_travel(content), whole, "{}", String::from_utf8_lossy(content));
        }
    }

    #[test]
    fn the_header_section_ends_at_the_empty_line() {
        for (content, headers) in [
            ("A: b\r\nC: d\r\n\r\nbody", "A: b\r\nC: d\r\n"),
            ("A: b\n\nbody", "A: b\n"),
            ("\r\nbody", ""),
            ("A: b", "A: b"),
        ] {
            assert_eq!(header_section(content.as_bytes()), headers.as_bytes());
        }
    }
}
