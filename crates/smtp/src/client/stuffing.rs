//! The content of a message as DATA wants it.

/// Puts a dot before each line that begins with one, and the final dot behind the content (RFC 5321 §4.5.2). The
/// content may come in pieces, cut anywhere; its line ends are CRLF.
#[derive(Debug)]
pub struct DotStuffer {
    tail: Tail,
}

/// What the content ended in so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// A complete line, or nothing at all.
    LineEnd,
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
        out.reserve(piece.len() + piece.len() / 64);
        let mut rest = piece;
        while !rest.is_empty() {
            if self.tail == Tail::LineEnd && rest[0] == b'.' {
                out.push(b'.');
            }
            // Up to the line's end, or to the piece's.
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            out.extend_from_slice(line);
            self.tail = match line {
                [.., b'\r', b'\n'] => Tail::LineEnd,
                [b'\n'] if self.tail == Tail::Cr => Tail::LineEnd,
                [.., b'\r'] => Tail::Cr,
                _ => Tail::Other,
            };
            rest = after;
        }
    }

    /// Appends the end: the last line's end where the content lacks it, and the final dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.tail != Tail::LineEnd {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
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
        ] {
            assert_eq!(String::from_utf8(stuff([content.as_bytes()])).unwrap(), wanted, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_the_content_is_cut(content in "([.a]|\r\n){0,60}", cut in 0usize..60) {
            let content = content.as_bytes();
            let (head, tail) = content.split_at(cut.min(content.len()));
            prop_assert_eq!(stuff([head, tail]), stuff([content]));
        }
    }
}
