//! The content of a message as DATA wants it.

/// Puts a dot before each line that begins with one, and the final dot behind the content (RFC 5321 §4.5.2). The
/// content may come in pieces, cut anywhere.
///
/// A CR or LF alone becomes a line end: RFC 5321 §2.3.8 forbids to send one, and a server that takes `LF . CR LF` for
/// the end of the message would take what follows for commands (SMTP smuggling).
#[derive(Debug)]
pub struct DotStuffer {
    tail: Tail,
}

/// What the content ended in so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// A complete line, or nothing at all.
    LineEnd,
    /// A CR, not written yet.
    Cr,
    Other,
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self { tail: Tail::LineEnd }
    }
}

impl DotStuffer {
    /// Appends the next piece to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() + piece.len() / 64 + 8);
        let mut rest = piece;
        while let Some(first) = rest.first() {
            match (self.tail, first) {
                (Tail::Cr, b'\n') => {
                    self.end_line(out);
                    rest = &rest[1..];
                    continue;
                }
                (Tail::Cr, _) => self.end_line(out),
                (Tail::LineEnd | Tail::Other, _) => {}
            }
            if self.tail == Tail::LineEnd && *first == b'.' {
                out.push(b'.');
            }
            let end = memchr::memchr2(b'\r', b'\n', rest);
            out.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            let Some(end) = end else {
                self.tail = Tail::Other;
                return;
            };
            if rest[end] == b'\r' {
                self.tail = Tail::Cr;
            } else {
                self.end_line(out);
            }
            rest = &rest[end + 1..];
        }
    }

    /// Appends the end: the last line's end where the content lacks it, and the final dot.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if self.tail != Tail::LineEnd {
            self.end_line(out);
        }
        out.extend_from_slice(b".\r\n");
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.tail = Tail::LineEnd;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stuff<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut stuffer, mut out) = (DotStuffer::default(), Vec::new());
        for piece in pieces {
            stuffer.push(piece, &mut out);
        }
        stuffer.finish(&mut out);
        out
    }

    #[test]
    fn dots_at_the_start_of_lines_are_doubled() {
        for (content, wanted) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            ("..a\r\n.b.\r\nc.\r\n", "...a\r\n..b.\r\nc.\r\n.\r\n"),
            ("a\r\n\r\n.\r\n\r\n", "a\r\n\r\n..\r\n\r\n.\r\n"),
            ("a\n.\r\nMAIL", "a\r\n..\r\nMAIL\r\n.\r\n"),
            ("a\r.\r\nMAIL\r", "a\r\n..\r\nMAIL\r\n.\r\n"),
            ("a\r\r\n\n", "a\r\n\r\n\r\n.\r\n"),
        ] {
            assert_eq!(String::from_utf8(stuff([content.as_bytes()])).unwrap(), wanted, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_the_content_is_cut(content in "([.a\r\n]|\r\n){0,60}", cut in 0usize..60) {
            let content = content.as_bytes();
            let (head, tail) = content.split_at(cut.min(content.len()));
            prop_assert_eq!(stuff([head, tail]), stuff([content]));
        }

        #[test]
        fn no_content_ends_itself(content in "[.a\r\n]{0,60}") {
            let stuffed = String::from_utf8(stuff([content.as_bytes()])).unwrap();
            let text = stuffed.strip_suffix(".\r\n").unwrap();
            let lines: Vec<&str> = text.split("\r\n").collect();
            prop_assert!(lines.iter().all(|line| *line != "." && !line.contains(['\r', '\n'])));
        }
    }
}
