//! The content of a message as it comes: where it ends, and whether it may be taken.
//!
//! Nothing but CRLF ends a line here, and nothing but `<CRLF>.<CRLF>` ends DATA. A server that took `<LF>.<CRLF>` or
//! the like for the end would see two messages where its neighbour sees one (SMTP smuggling); so content with a bare
//! CR or LF is read to its real end and then refused.

use bytes::{Buf as _, BytesMut};
use posthorn_mail::{EnhancedStatus, Status};

/// Why content cannot be taken. Where there are several reasons, the last of these is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A line longer than the limit.
    LongLine,
    /// A zero octet (RFC 5321 §2.3.8 leaves it no meaning, RFC 5322 §4 forbids it).
    Nul,
    /// A CR without LF or an LF without CR.
    BareLineEnd,
    /// Larger than the limit.
    TooLarge,
}

impl Fault {
    pub(super) fn status(self) -> Status {
        let (code, enhanced, text) = match self {
            Self::TooLarge => (552, EnhancedStatus::new(5, 3, 4), "Message size exceeds the limit"),
            Self::BareLineEnd => {
                (550, EnhancedStatus::new(5, 6, 11), "Lines must end in CRLF; a bare CR or LF is not allowed")
            }
            Self::Nul => (554, EnhancedStatus::new(5, 6, 0), "NUL is not allowed in a message"),
            Self::LongLine => (554, EnhancedStatus::new(5, 6, 0), "A line of the message is too long"),
        };
        Status::new(code, enhanced, text)
    }
}

/// Where in a line the content stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Text,
    /// A CR was read.
    Cr,
    /// At the start of a line of DATA a dot was read: stuffed, or the end.
    Dot,
    /// And a CR after it.
    DotCr,
}

/// What the octets of the content mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Lines, dot-stuffed, ended by a dot (DATA).
    Dotted,
    /// Lines (BDAT).
    Lines,
    /// Any octets (BDAT with BODY=BINARYMIME).
    Binary,
}

/// Reads content piece by piece, however it is cut.
#[derive(Debug)]
pub(super) struct Reader {
    form: Form,
    place: Place,
    fault: Option<Fault>,
    eight_bit: bool,
    size: u64,
    size_limit: u64,
    line: usize,
    line_limit: usize,
}

impl Reader {
    pub(super) fn new(form: Form, size_limit: u64, line_limit: usize) -> Self {
        Self {
            form,
            place: Place::Start,
            fault: None,
            eight_bit: false,
            size: 0,
            size_limit,
            line: 0,
            line_limit,
        }
    }

    /// Takes at most `limit` octets of the input and appends the content in them to `out`, without stuffed dots;
    /// once there is a fault, nothing. Tells whether the final dot was read.
    pub(super) fn read(&mut self, input: &mut BytesMut, limit: usize, out: &mut BytesMut) -> bool {
        let piece = &input[..input.len().min(limit)];
        let (taken, ended) = match self.form {
            Form::Binary => {
                self.keep(piece, out);
                (piece.len(), false)
            }
            Form::Dotted | Form::Lines => self.scan(piece, out),
        };
        input.advance(taken);
        ended
    }

    /// The end of content that no dot ends.
    pub(super) fn end(&mut self) {
        if self.place == Place::Cr && self.form == Form::Lines {
            self.fail(Fault::BareLineEnd);
        }
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether there was an octet above 127.
    pub(super) fn eight_bit(&self) -> bool {
        self.eight_bit
    }

    /// Octets so far, without stuffed dots.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn fail(&mut self, fault: Fault) {
        self.fault = self.fault.max(Some(fault));
    }

    fn scan(&mut self, piece: &[u8], out: &mut BytesMut) -> (usize, bool) {
        let mut at = 0;
        // What stands from here to `at` is content and not yet in `out`.
        let mut kept = 0;
        while let Some(&byte) = piece.get(at) {
            match (self.place, byte) {
                (Place::Start, b'.') if self.form == Form::Dotted => {
                    self.keep(&piece[kept..at], out);
                    at += 1;
                    kept = at;
                    self.place = Place::Dot;
                }
                (Place::Dot, b'\r') => {
                    at += 1;
                    kept = at;
                    self.place = Place::DotCr;
                }
                (Place::DotCr, b'\n') => return (at + 1, true),
                (Place::DotCr, _) => {
                    self.fail(Fault::BareLineEnd);
                    self.place = Place::Text;
                }
                (Place::Cr, b'\n') => {
                    at += 1;
                    self.line = 0;
                    self.place = Place::Start;
                }
                (Place::Cr, _) => {
                    self.fail(Fault::BareLineEnd);
                    self.place = Place::Text;
                }
                (Place::Start | Place::Dot | Place::Text, _) => at += self.text(&piece[at..]),
            }
        }
        self.keep(&piece[kept..], out);
        (piece.len(), false)
    }

    /// Goes on to the end of the line, or of the piece; returns how far.
    fn text(&mut self, rest: &[u8]) -> usize {
        self.place = Place::Text;
        let Some(run) = memchr::memchr3(b'\r', b'\n', 0, rest) else {
            self.lengthen(rest.len());
            return rest.len();
        };
        self.lengthen(run);
        match rest[run] {
            b'\r' => self.place = Place::Cr,
            b'\n' => self.fail(Fault::BareLineEnd),
            _ => self.fail(Fault::Nul),
        }
        run + 1
    }

    fn lengthen(&mut self, by: usize) {
        self.line += by;
        // The CRLF counts.
        if self.line + 2 > self.line_limit {
            self.fail(Fault::LongLine);
        }
    }

    fn keep(&mut self, content: &[u8], out: &mut BytesMut) {
        self.size += content.len() as u64;
        if self.size > self.size_limit {
            self.fail(Fault::TooLarge);
        }
        if self.fault.is_none() {
            self.eight_bit |= !content.is_ascii();
            out.extend_from_slice(content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the pieces; gives back the content, what was not taken, and the fault, if the end was seen.
    fn read(form: Form, pieces: &[&[u8]]) -> Option<(Vec<u8>, Vec<u8>, Option<Fault>)> {
        let mut reader = Reader::new(form, 40, 20);
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            if reader.read(&mut input, usize::MAX, &mut out) {
                return Some((out.to_vec(), input.to_vec(), reader.fault()));
            }
        }
        reader.end();
        (form != Form::Dotted).then(|| (out.to_vec(), Vec::new(), reader.fault()))
    }

    #[test]
    fn dots_end_and_are_unstuffed() {
        for (input, content, rest) in [
            (&b"a\r\n.\r\nQUIT"[..], &b"a\r\n"[..], &b"QUIT"[..]),
            (b".\r\n", b"", b""),
            (b"..\r\n.\r\n", b".\r\n", b""),
            (b".a\r\n..b\r\na.b\r\n.\r\n", b"a\r\n.b\r\na.b\r\n", b""),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n", b""),
        ] {
            for cut in 0..input.len() {
                let (head, tail) = input.split_at(cut);
                let (got, left, fault) = read(Form::Dotted, &[head, tail]).unwrap();
                assert_eq!((got.as_slice(), fault), (content, None), "{input:?} at {cut}");
                assert!(rest.starts_with(&left));
            }
        }
    }

    #[test]
    fn nothing_else_ends_data() {
        for input in [
            &b"a\n.\n"[..],
            b"a\r\n.\n",
            b"a\n.\r\n",
            b"a\r.\r",
            b"a\r.\r\n",
            b"a\r\n.\r",
            b"a\r\n\0.\r\n",
            b"a\r\n. \r\n",
        ] {
            assert_eq!(read(Form::Dotted, &[input]), None, "{input:?}");
        }
    }

    #[test]
    fn faults_are_seen_and_the_end_is_still_found() {
        for (input, fault) in [
            (&b"a\nb\r\n.\r\n"[..], Fault::BareLineEnd),
            (b"a\rb\r\n.\r\n", Fault::BareLineEnd),
            (b"a\r\r\n.\r\n", Fault::BareLineEnd),
            (b".\rx\r\n.\r\n", Fault::BareLineEnd),
            (b".\r\r\n.\r\n", Fault::BareLineEnd),
            (b".\n\r\n.\r\n", Fault::BareLineEnd),
            (b"\n.\r\n\r\n.\r\n", Fault::BareLineEnd),
            (b"a\0\r\n.\r\n", Fault::Nul),
            (b"1234567890123456789\r\n.\r\n", Fault::LongLine),
            (b"123456789012345678\r\n123456789012345678\r\n1\r\n.\r\n", Fault::TooLarge),
        ] {
            for cut in 0..input.len() {
                let (head, tail) = input.split_at(cut);
                assert_eq!(read(Form::Dotted, &[head, tail]).unwrap().2, Some(fault), "{input:?} at {cut}");
            }
        }
    }

    #[test]
    fn chunks_have_no_dots() {
        assert_eq!(read(Form::Lines, &[b".\r", b"\n..\r\n"]), Some((b".\r\n..\r\n".to_vec(), vec![], None)));
        assert_eq!(read(Form::Lines, &[b"a\r"]).unwrap().2, Some(Fault::BareLineEnd));
        assert_eq!(read(Form::Binary, &[b"\0\r\n\n\r"]), Some((b"\0\r\n\n\r".to_vec(), vec![], None)));
    }
}
