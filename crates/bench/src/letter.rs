//! The messages that are sent: all alike but for a number, by which an arrival is known again.

use std::io::Write as _;

/// The envelope sender of all of them.
pub(crate) const SENDER: &str = "source@outside.test";

/// A message of `size` octets, or a little more where the header section alone is larger.
pub(crate) fn letter(number: u64, size: usize) -> Vec<u8> {
    let mut letter = Vec::with_capacity(size + LINE.len());
    // Writing to memory does not fail.
    let _ = write!(
        letter,
        "From: Source <{SENDER}>\r\nTo: Somebody <somebody@example.test>\r\n{SUBJECT}{number}\r\n\
         Date: Mon, 23 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{number}@outside.test>\r\n\r\n"
    );
    while letter.len() + LINE.len() <= size {
        letter.extend_from_slice(LINE);
    }
    if let Some(rest) = size.checked_sub(letter.len() + 2) {
        letter.resize(letter.len() + rest, b'x');
        letter.extend_from_slice(b"\r\n");
    }
    letter
}

const SUBJECT: &str = "Subject: bench ";

/// A line as mail has them, 76 octets and the line end.
const LINE: &[u8; 78] = b"abcdefghijklmnopqrstuvwxyz 0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789.\r\n";

/// The number of the message that has this subject.
pub(crate) fn number_of(subject: &str) -> Option<u64> {
    subject.strip_prefix("bench ")?.parse().ok()
}

/// The number of the message that begins with these octets.
pub(crate) fn number_in(head: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(head, SUBJECT.as_bytes())? + SUBJECT.len();
    let end = at + memchr::memchr(b'\r', &head[at..]).or_else(|| memchr::memchr(b'\n', &head[at..]))?;
    std::str::from_utf8(&head[at..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_the_size_asked_for() {
        for size in [300, 301, 4096, 1 << 20] {
            let letter = letter(7, size);
            assert_eq!(letter.len(), size);
            assert!(letter.ends_with(b"\r\n"));
            assert!(memchr::memmem::find(&letter, b"\r\n.").is_none(), "nothing to stuff");
        }
        assert!(letter(7, 0).ends_with(b"\r\n\r\n"), "the header section alone");
    }

    #[test]
    fn its_number_is_found_again() {
        assert_eq!(number_in(&letter(42, 4096)), Some(42));
        assert_eq!(number_in(b"Received: x\nSubject: bench 43\nTo: x"), Some(43));
        assert_eq!(number_in(b"Subject: lunch\r\n"), None);
        assert_eq!(number_of("bench 44"), Some(44));
        assert_eq!(number_of("lunch"), None);
    }
}
