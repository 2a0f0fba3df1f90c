//! The header section of a message, as far as whoever takes it in has to look at it.

use std::fmt::Write as _;

/// What was seen of a header section, and how far it was read. Told the same content again with more at its end, it
/// goes on where it was.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct HeaderScan {
    /// Where the first line begins that was not read yet.
    at: usize,
    /// How far it was searched for its end: a long line that comes octet by octet is not searched again for each.
    searched: usize,
    /// Where the section ends: at the empty line, or at the first line that belongs to no field.
    pub(crate) end: Option<usize>,
    /// Received fields (RFC 5321 §6.3).
    pub(crate) hops: u32,
    pub(crate) has_date: bool,
    pub(crate) has_message_id: bool,
    pub(crate) has_from: bool,
}

impl HeaderScan {
    /// Reads the lines that are complete; `content` is all of the message so far.
    pub(crate) fn read(&mut self, content: &[u8]) {
        while self.end.is_none() {
            let from = self.at.max(self.searched);
            let Some(length) = memchr::memchr(b'\n', &content[from..]) else {
                self.searched = content.len();
                return;
            };
            self.line(&content[self.at..=from + length]);
        }
    }

    /// The same with the whole message: its last line may have no end.
    pub(crate) fn read_to_end(&mut self, content: &[u8]) {
        self.read(content);
        if self.end.is_none() && self.at < content.len() {
            self.line(&content[self.at..]);
        }
    }

    fn line(&mut self, line: &[u8]) {
        let is_folded = self.at > 0 && matches!(line[0], b' ' | b'\t');
        if is_folded {
            self.at += line.len();
            return;
        }
        let Some(name) = field_name(line) else {
            self.end = Some(self.at);
            return;
        };
        self.at += line.len();
        if name.eq_ignore_ascii_case(b"Received") {
            self.hops += 1;
        } else if name.eq_ignore_ascii_case(b"Date") {
            self.has_date = true;
        } else if name.eq_ignore_ascii_case(b"Message-ID") {
            self.has_message_id = true;
        } else if name.eq_ignore_ascii_case(b"From") {
            self.has_from = true;
        }
    }

    /// The fields that RFC 6409 §8 lets a submission server add, where they are missing.
    pub(crate) fn missing_fields(&self, date: &str, message_id: &str) -> String {
        let mut fields = String::new();
        if !self.has_date {
            write!(fields, "Date: {date}\r\n").expect("a String takes all that is written to it");
        }
        if !self.has_message_id {
            write!(fields, "Message-ID: <{message_id}>\r\n")
                .expect("a String takes all that is written to it");
        }
        fields
    }

    /// Where more fields may be put in: at the end of the section, or before all else where it ends in the middle of
    /// a line.
    pub(crate) fn place_for_more(&self) -> usize {
        self.end.unwrap_or(0)
    }
}

/// The name of the field that a line begins (RFC 5322 §2.2; §4.5 has blanks before the colon).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(|b| (b'!'..=b'~').contains(b))).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(content: &str) -> HeaderScan {
        let mut scan = HeaderScan::default();
        scan.read_to_end(content.as_bytes());
        scan
    }

    #[test]
    fn the_section_ends_where_no_field_is() {
        for (content, end) in [
            ("Subject: a\r\n\r\nbody\r\n", Some(12)),
            ("Subject: a\r\n b\r\n\tc\r\n\r\n", Some(20)),
            ("\r\nbody\r\n", Some(0)),
            ("just text\r\n", Some(0)),
            (" folded first\r\n", Some(0)),
            ("Subject: a\r\njust text\r\n", Some(12)),
            ("From old@mbox Mon\r\nSubject: a\r\n\r\n", Some(0)),
            ("Subject : a\r\n\r\n", Some(13)),
            ("Subject: a\r\n", None),
            ("Subject: a", None),
            ("", None),
        ] {
            assert_eq!(scan(content).end, end, "{content:?}");
        }
    }

    #[test]
    fn it_reads_on_wherever_the_content_was_cut() {
        let content = b"Received: a\r\n b\r\nreceived: c\r\nDATE: d\r\nFrom: e\r\n\r\nReceived: f\r\n";
        for cut in 0..content.len() {
            let mut scan = HeaderScan::default();
            scan.read(&content[..cut]);
            scan.read_to_end(content);
            assert_eq!(
                (scan.hops, scan.has_date, scan.has_from, scan.has_message_id),
                (2, true, true, false),
                "{cut}"
            );
            assert_eq!(scan.end, Some(48));
        }
    }

    #[test]
    fn nothing_is_searched_twice() {
        let mut scan = HeaderScan::default();
        for content in [&b"Subject: a"[..], b"Subject: a long", b"Subject: a long line\r"] {
            scan.read(content);
            assert_eq!((scan.at, scan.searched), (0, content.len()));
        }
        scan.read(b"Subject: a long line\r\nTo");
        assert_eq!((scan.at, scan.searched), (22, 24));
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let add = |content: &str| scan(content).missing_fields("D", "m@h");
        assert_eq!(add("Subject: a\r\n\r\n"), "Date: D\r\nMessage-ID: <m@h>\r\n");
        assert_eq!(add("Date: a\r\n\r\n"), "Message-ID: <m@h>\r\n");
        assert_eq!(add("message-id: <a@b>\r\nDate: a\r\n\r\n"), "");
    }
}
