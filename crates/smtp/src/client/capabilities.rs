//! What a server says it can do.

use super::Reply;

/// The extensions that a reply to EHLO offers (RFC 5321 §4.1.1.1). The default is what HELO gives: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920: commands may be sent without waiting for each reply.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 3030: BDAT.
    pub chunking: bool,
    /// RFC 3030; never without `chunking`.
    pub binary_mime: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 1870.
    pub size: Size,
}

/// What a server says of the size of messages (RFC 1870 §4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Size {
    /// SIZE is not offered.
    #[default]
    Unsaid,
    /// SIZE may be declared; no limit is known.
    Unlimited,
    /// Messages of at most so many bytes are taken.
    AtMost(u64),
}

impl Capabilities {
    /// Reads the reply to EHLO; what is not known is passed over.
    pub fn of_reply(reply: &Reply) -> Self {
        let mut found = Self::default();
        for line in reply.lines().iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => found.pipelining = true,
                "8BITMIME" => found.eight_bit_mime = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "DSN" => found.dsn = true,
                "CHUNKING" => found.chunking = true,
                "BINARYMIME" => found.binary_mime = true,
                "STARTTLS" => found.starttls = true,
                "SIZE" => found.size = Size::of_word(words.next()),
                _ => {}
            }
        }
        found.binary_mime &= found.chunking;
        found
    }
}

impl Size {
    /// RFC 1870 §4: no number, or zero, is no limit.
    fn of_word(word: Option<&str>) -> Self {
        match word.and_then(|word| word.parse().ok()) {
            None | Some(0) => Self::Unlimited,
            Some(limit) => Self::AtMost(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ReplyReader;
    use super::*;

    #[test]
    fn offers_are_read_in_any_case() {
        let mut reader = ReplyReader::default();
        reader.push(
            b"250-mx.example PIPELINING\r\n250-size 1000\r\n250-8bitmime\r\n250-BINARYMIME\r\n250 X-Y z\r\n",
        );
        let reply = reader.next_reply().unwrap().unwrap();
        // The first line is the server's name; BINARYMIME means nothing without CHUNKING.
        let wanted =
            Capabilities { eight_bit_mime: true, size: Size::AtMost(1000), ..Capabilities::default() };
        assert_eq!(Capabilities::of_reply(&reply), wanted);
    }

    #[test]
    fn a_size_of_zero_is_no_limit() {
        for (word, size) in [
            (None, Size::Unlimited),
            (Some("0"), Size::Unlimited),
            (Some("x"), Size::Unlimited),
            (Some("52428800"), Size::AtMost(52_428_800)),
        ] {
            assert_eq!(Size::of_word(word), size);
        }
    }
}
