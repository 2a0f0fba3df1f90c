//! Command lines out of a stream of bytes.

use bytes::{Buf as _, BytesMut};

/// A line from the client, its CRLF taken off.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Text, without control characters that a command cannot have.
    Text(String),
    /// A bare CR or LF, a NUL, or not UTF-8.
    Malformed,
    /// Longer than any command may be.
    TooLong,
}

/// Cuts lines; holds nothing but whether the line under way is too long already.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    overlong: bool,
}

impl LineReader {
    /// The next line, if all of it is there. `limit` counts its CRLF. A line that is longer is swallowed as it comes.
    ///
    /// A bare LF ends a line too, but only to say that it is malformed: no command is taken out of it.
    pub(super) fn next(&mut self, input: &mut BytesMut, limit: usize) -> Option<Line> {
        let Some(end) = input.iter().position(|b| *b == b'\n') else {
            if input.len() >= limit {
                self.overlong = true;
                input.clear();
            }
            return None;
        };
        let line = input.split_to(end);
        input.advance(1);
        if std::mem::take(&mut self.overlong) || end + 1 > limit {
            return Some(Line::TooLong);
        }
        Some(text(&line).map_or(Line::Malformed, |text| Line::Text(text.to_owned())))
    }
}

/// The text of a line that should end in CR.
fn text(line: &[u8]) -> Option<&str> {
    let line = line.strip_suffix(b"\r")?;
    let text = std::str::from_utf8(line).ok()?;
    // A tab is no control character that could do harm; where it may not stand, the command's parser says so.
    (!text.bytes().any(|b| b == 0x7f || b < b' ' && b != b'\t')).then_some(text)
}

/// The line that comes next, if all of it is there, nothing is wrong with it and it begins with this verb; and how
/// many octets it takes with its line end.
pub(super) fn peek<'a>(input: &'a [u8], verb: &str, limit: usize) -> Option<(&'a str, usize)> {
    if !input.get(..verb.len())?.eq_ignore_ascii_case(verb.as_bytes()) {
        return None;
    }
    let end = input.iter().position(|b| *b == b'\n').filter(|end| *end < limit)?;
    Some((text(&input[..end])?, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Line> {
        let mut input = BytesMut::from(input);
        let mut reader = LineReader::default();
        std::iter::from_fn(|| reader.next(&mut input, 20)).collect()
    }

    #[test]
    fn only_crlf_ends_a_command() {
        let text = |t: &str| Line::Text(t.into());
        assert_eq!(lines(b"NOOP\r\nQUIT\r\nRS"), [text("NOOP"), text("QUIT")]);
        assert_eq!(lines(b"NOOP\nQUIT\r\n"), [Line::Malformed, text("QUIT")]);
        assert_eq!(lines(b"NO\rOP\r\n"), [Line::Malformed]);
        assert_eq!(lines(b"NOOP\r\r\n"), [Line::Malformed]);
        assert_eq!(lines(b"NO\0OP\r\n"), [Line::Malformed]);
        assert_eq!(lines(b"\xff\xfe\r\n"), [Line::Malformed]);
        assert_eq!(lines(b"\r\n"), [text("")]);
        assert_eq!(lines(b"NOOP 12345678901234\r\nQUIT\r\n"), [Line::TooLong, text("QUIT")]);
        assert_eq!(lines(b"NOOP 1234567890123\r\n"), [text("NOOP 1234567890123")]);
    }
}
