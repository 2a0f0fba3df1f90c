//! 8-bit and binary content for servers that do not take it (RFC 6152 §3, RFC 3030 §3).
//!
//! Each part that needs it is encoded anew, as quoted-printable or base64, whichever is shorter; multiparts and messages
//! within are gone through part by part. What need not be changed stays as it is, byte for byte. Nothing within a
//! signed or encrypted multipart may be changed at all (RFC 1847 §2.1): such a message is returned to its sender.

mod boundary;
mod encode;
mod header;

use posthorn_mail::Body;

use header::{ContentType, Header, TransferEncoding};

/// How deep parts may be nested.
const MAX_DEPTH: usize = 50;

/// What content needs of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// To be taken as it is.
    pub body: Body,
    /// The header section holds more than ASCII, as only SMTPUTF8 allows.
    pub utf8_headers: bool,
}

/// Looks through content. `declared` is what its sender said of it, which may be too much or too little: what was said
/// to be binary may be lines, and what was said to be ASCII often is not.
pub fn needs(content: &[u8], declared: Body) -> Needs {
    let (header, _) = header::split(content);
    let body = match declared {
        Body::BinaryMime if is_binary(content) => Body::BinaryMime,
        _ if content.is_ascii() => Body::SevenBit,
        _ => Body::EightBitMime,
    };
    Needs { body, utf8_headers: !header.is_ascii() }
}

/// Why content cannot be converted: it is the sender's again, with 5.6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unconvertible {
    /// To change it would break its signature, or what only its recipient can read.
    #[error("8-bit content that is signed or encrypted cannot be converted")]
    Signed,
    /// A multipart without a boundary, or nested too deeply.
    #[error("8-bit content in a malformed multipart cannot be converted")]
    Malformed,
    /// A header section, of the message or of a part, holds octets: there is no other way to write what no one knows
    /// the meaning of.
    #[error("8-bit octets in a header cannot be converted")]
    Header,
    /// It says that it is encoded, and is not; or its type may not be encoded (RFC 2046 §5.2.2, §5.2.3).
    #[error("8-bit content of a type or encoding that does not allow it cannot be converted")]
    Encoding,
}

/// The content with no part that `to` ([`Body::SevenBit`] or [`Body::EightBitMime`]) cannot carry.
///
/// Header sections are left as they are but for the fields that say how a body is encoded.
pub fn downgrade(content: &[u8], to: Body) -> Result<Vec<u8>, Unconvertible> {
    let mut out = Vec::with_capacity(content.len() + content.len() / 4);
    Converter { to }.entity(content, Place::Message, 0, &mut out)?;
    if to == Body::SevenBit && !out.is_ascii() {
        return Err(Unconvertible::Header);
    }
    Ok(out)
}

#[derive(Debug, Clone, Copy)]
struct Converter {
    to: Body,
}

/// Where an entity stands: what it is when it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A message, whole or attached: MIME only where it says so.
    Message,
    Part,
    /// A part of multipart/digest: a message (RFC 2046 §5.1.5).
    DigestPart,
}

impl Converter {
    fn entity(
        self,
        bytes: &[u8],
        place: Place,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Unconvertible> {
        let (header, body) = header::split(bytes);
        if self.carries(body) {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(Unconvertible::Malformed);
        }
        let header = Header::parse(header);
        if header.transfer_encoding() == TransferEncoding::Encoded {
            return Err(Unconvertible::Encoding);
        }
        let kind = header.content_type().unwrap_or_else(|| match place {
            Place::Message | Place::Part => ContentType::named("text/plain"),
            Place::DigestPart => ContentType::named("message/rfc822"),
        });
        match kind.name.as_str() {
            "multipart/signed" | "multipart/encrypted" => Err(Unconvertible::Signed),
            "message/partial" | "message/external-body" => Err(Unconvertible::Encoding),
            "message/rfc822" => {
                self.relabel(&header, out);
                self.entity(body, Place::Message, depth + 1, out)
            }
            name if name.starts_with("multipart/") => {
                self.relabel(&header, out);
                self.multipart(&kind, body, depth, out)
            }
            _ => {
                self.leaf(&header, &kind, body, place, out);
                Ok(())
            }
        }
    }

    fn multipart(
        self,
        kind: &ContentType,
        body: &[u8],
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Unconvertible> {
        let boundary = kind.boundary.as_ref().ok_or(Unconvertible::Malformed)?;
        let pieces = boundary::split(body, boundary).ok_or(Unconvertible::Malformed)?;
        let place = if kind.name == "multipart/digest" { Place::DigestPart } else { Place::Part };
        // What stands around the parts is to be ignored by who reads it (RFC 2046 §5.1.1).
        out.extend(self.masked(pieces.preamble));
        for (delimiter, part) in pieces.parts {
            out.extend_from_slice(delimiter);
            self.entity(part, place, depth + 1, out)?;
        }
        out.extend(self.masked(pieces.epilogue));
        Ok(())
    }

    fn masked(self, text: &[u8]) -> impl Iterator<Item = u8> {
        text.iter().map(move |byte| {
            let fits = *byte != 0 && (byte.is_ascii() || self.to != Body::SevenBit);
            if fits { *byte } else { b'?' }
        })
    }

    /// What holds other entities is not encoded itself, it only says what is the most that is in it.
    fn relabel(self, header: &Header<'_>, out: &mut Vec<u8>) {
        let label = if self.to == Body::SevenBit { "7bit" } else { "8bit" };
        header.write_with_encoding(label, out);
        out.extend_from_slice(b"\r\n");
    }

    fn leaf(self, header: &Header<'_>, kind: &ContentType, body: &[u8], place: Place, out: &mut Vec<u8>) {
        // Quoted-printable knows no line ends but CRLF, and grows by two for each byte; base64 by a third.
        let costly = body.iter().filter(|byte| !byte.is_ascii()).count() > body.len() / 6;
        let text = kind.name.starts_with("text/") && !costly && !is_binary(body);
        header.write_with_encoding(if text { "quoted-printable" } else { "base64" }, out);
        if place == Place::Message && !header.has("mime-version") {
            out.extend_from_slice(b"MIME-Version: 1.0\r\n");
            if !header.has("content-type") {
                // RFC 1428 §3
                out.extend_from_slice(b"Content-Type: text/plain; charset=unknown-8bit\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
        if text {
            encode::quoted_printable(body, out);
        } else {
            encode::base64(body, out);
        }
    }

    fn carries(self, body: &[u8]) -> bool {
        (body.is_ascii() || self.to != Body::SevenBit) && !is_binary(body)
    }
}

/// Whether the content is not just lines: it has a NUL, a CR or LF alone, or a line longer than RFC 5321 §4.5.3.1.6
/// allows.
fn is_binary(content: &[u8]) -> bool {
    let mut lines = content.split_inclusive(|byte| *byte == b'\n');
    lines.any(|line| {
        let (text, ended) = match line {
            [text @ .., b'\r', b'\n'] => (text, true),
            text => (text, !text.ends_with(b"\n")),
        };
        !ended || text.len() > 998 || text.iter().any(|byte| matches!(byte, 0 | b'\r'))
    })
}

#[cfg(test)]
mod tests;
