//! Replies as they go over the wire (RFC 5321 §4.2).

use bytes::{BufMut as _, BytesMut};
use posthorn_mail::EnhancedStatus;

/// RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets; this much of it may be text.
const TEXT: usize = 480;

/// Writes a reply. A text that is too long for one line goes on in the next; what is not ASCII becomes `?`, since
/// not every client that reads it has asked for SMTPUTF8.
pub fn write(out: &mut BytesMut, code: u16, enhanced: Option<EnhancedStatus>, text: &str) {
    let text: String = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
    let mut rest = text.as_str();
    loop {
        let (line, after) = break_line(rest);
        put_line(out, code, after.is_empty(), enhanced, line);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// Writes a reply of several lines without enhanced codes: the answer to EHLO.
pub fn write_lines<'a>(out: &mut BytesMut, code: u16, lines: impl IntoIterator<Item = &'a str>) {
    let mut lines = lines.into_iter().peekable();
    while let Some(line) = lines.next() {
        put_line(out, code, lines.peek().is_none(), None, line);
    }
}

fn put_line(out: &mut BytesMut, code: u16, last: bool, enhanced: Option<EnhancedStatus>, text: &str) {
    use std::fmt::Write as _;
    let separator = if last { ' ' } else { '-' };
    out.reserve(text.len() + 20);
    // RFC 2034 §4: the enhanced code stands in every line.
    match enhanced {
        Some(enhanced) => write!(out, "{code}{separator}{enhanced} {text}\r\n"),
        None => write!(out, "{code}{separator}{text}\r\n"),
    }
    .expect("a BytesMut grows as it is written to");
}

/// Splits an ASCII text where a line of it must end: at a space if there is one.
fn break_line(text: &str) -> (&str, &str) {
    if text.len() <= TEXT {
        return (text, "");
    }
    let at = text[..TEXT].rfind(' ').filter(|at| *at > 0).unwrap_or(TEXT);
    (&text[..at], text[at..].trim_start())
}

/// The reply 354, which has no enhanced code (RFC 2034 §4 gives them to 2yz, 4yz and 5yz alone).
pub(crate) fn write_plain(out: &mut BytesMut, line: &str) {
    out.put_slice(line.as_bytes());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = BytesMut::new();
        write(&mut out, 550, Some(EnhancedStatus::new(5, 1, 1)), text);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_reply_is_one_line_of_ascii() {
        assert_eq!(shown("No such user"), "550 5.1.1 No such user\r\n");
        assert_eq!(shown(""), "550 5.1.1 \r\n");
        assert_eq!(shown("jürgen\r\n250 Ok"), "550 5.1.1 j?rgen??250 Ok\r\n");
    }

    #[test]
    fn long_texts_take_several_lines() {
        for text in ["word ".repeat(300), "x".repeat(1500)] {
            let reply = shown(&text);
            let lines: Vec<_> = reply.split_terminator("\r\n").collect();
            assert!(lines.len() > 2 && lines.iter().all(|line| line.len() <= 510));
            assert!(lines[..lines.len() - 1].iter().all(|line| line.starts_with("550-5.1.1 ")));
            assert!(lines[lines.len() - 1].starts_with("550 5.1.1 "));
        }
    }
}
