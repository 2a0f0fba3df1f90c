//! Replies: from bytes to what the server said.

use posthorn_mail::{EnhancedStatus, Status};

/// The longest line taken, without its end. RFC 5321 §4.5.3.1.5 allows 512 octets; servers in the wild say more.
const MAX_LINE: usize = 4096;
/// The most lines of one reply.
const MAX_LINES: usize = 200;
/// The longest text kept of a reply, in bytes: it goes into outcomes, logs and notices.
const MAX_TEXT: usize = 1000;

/// A complete reply (RFC 5321 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    lines: Vec<String>,
}

/// What came is no reply of SMTP; the connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line longer than 4,096 octets.
    #[error("the server sent a reply line that does not end")]
    LineTooLong,
    /// More than 200 lines.
    #[error("the server sent a reply that does not end")]
    TooManyLines,
    /// A line that does not begin with a reply code.
    #[error("the server sent what is no reply of SMTP")]
    Malformed,
}

impl Reply {
    /// The reply code, 200 to 599.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// 2yz or 3yz.
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// The texts of the lines, without codes.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The reply as a status: the enhanced code taken out of the text (RFC 2034), the lines put into one.
    pub fn status(&self) -> Status {
        let (enhanced, first) = split_enhanced(self.lines.first().map_or("", String::as_str));
        let mut text = first.to_owned();
        for line in self.lines.iter().skip(1) {
            // RFC 2034 §4: the code stands on each line.
            let line = match enhanced {
                Some(_) => split_enhanced(line).1,
                None => line,
            };
            if !line.is_empty() {
                text.push(' ');
                text.push_str(line);
            }
        }
        truncate(&mut text, MAX_TEXT);
        Status::said(self.code, enhanced, &text).expect("a reply's code is 200 to 599")
    }
}

fn split_enhanced(line: &str) -> (Option<EnhancedStatus>, &str) {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word.parse() {
        Ok(enhanced) => (Some(enhanced), rest.trim_start()),
        Err(_) => (None, line),
    }
}

fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Splits what a server sends into replies, however the network cut it.
#[derive(Debug, Clone, Default)]
pub struct ReplyReader {
    buffer: Vec<u8>,
    lines: Vec<String>,
}

impl ReplyReader {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete reply; `None` until more has come.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let Some(end) = self.buffer.iter().position(|b| *b == b'\n') else {
                let endless = self.buffer.len() > MAX_LINE;
                return if endless { Err(ReplyError::LineTooLong) } else { Ok(None) };
            };
            if end > MAX_LINE {
                return Err(ReplyError::LineTooLong);
            }
            let (code, more, text) = parse_line(&self.buffer[..end])?;
            self.buffer.drain(..=end);
            self.lines.push(text);
            if !more {
                // Where the lines disagree, the last one decides, as in other clients.
                return Ok(Some(Reply { code, lines: std::mem::take(&mut self.lines) }));
            }
            if self.lines.len() >= MAX_LINES {
                return Err(ReplyError::TooManyLines);
            }
        }
    }

    /// Whether bytes of a reply not yet complete have come.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.lines.is_empty()
    }
}

/// `250-text`, `250 text` or `250`: the code, whether lines follow, and the text.
fn parse_line(line: &[u8]) -> Result<(u16, bool, String), ReplyError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (digits, rest) = line.split_at_checked(3).ok_or(ReplyError::Malformed)?;
    if !(b'2'..=b'5').contains(&digits[0]) || !digits[1..].iter().all(u8::is_ascii_digit) {
        return Err(ReplyError::Malformed);
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let (more, text) = match rest.split_first() {
        None => (false, rest),
        Some((b' ', text)) => (false, text),
        Some((b'-', text)) => (true, text),
        Some(_) => return Err(ReplyError::Malformed),
    };
    // What is no printable text must not reach logs or notices as it is.
    let text = String::from_utf8_lossy(text).replace(char::is_control, " ");
    Ok((code, more, text.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Reply>, ReplyError> {
        let mut reader = ReplyReader::default();
        reader.push(bytes);
        std::iter::from_fn(|| reader.next_reply().transpose()).collect()
    }

    #[test]
    fn replies_come_to_a_status() {
        for (text, status) in [
            ("250 ok\r\n", "250 2.0.0 ok"),
            ("250\r\n", "250 2.0.0 "),
            ("250 2.1.5 ok\n", "250 2.1.5 ok"),
            ("550-5.1.1 no such user\r\n550 5.1.1 here\r\n", "550 5.1.1 no such user here"),
            ("550-go\r\n550-\r\n550 away\r\n", "550 5.0.0 go away"),
            ("450 5.2.2 the codes disagree\r\n", "450 4.2.2 the codes disagree"),
            ("554 5.7.1.2 not a code\r\n", "554 5.0.0 5.7.1.2 not a code"),
            ("550 a\x1b[31mb\r\n", "550 5.0.0 a [31mb"),
            ("250-first\r\n550 last\r\n", "550 5.0.0 first last"),
        ] {
            let replies = read(text.as_bytes()).unwrap();
            assert_eq!(replies.len(), 1, "{text}");
            assert_eq!(replies[0].status().to_string(), status, "{text}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for (bytes, error) in [
            (b"hello\r\n".to_vec(), ReplyError::Malformed),
            (b"25\r\n".to_vec(), ReplyError::Malformed),
            (b"650 x\r\n".to_vec(), ReplyError::Malformed),
            (b"250x\r\n".to_vec(), ReplyError::Malformed),
            (b"\r\n".to_vec(), ReplyError::Malformed),
            ([b"250 ".as_slice(), &[b'a'; 5000]].concat(), ReplyError::LineTooLong),
            (b"250-x\r\n".repeat(300), ReplyError::TooManyLines),
        ] {
            assert_eq!(read(&bytes), Err(error));
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let reply = read(format!("550 {}\r\n", "ä".repeat(900)).as_bytes()).unwrap().remove(0);
        assert_eq!(reply.status().text().len(), 1000);
    }

    proptest! {
        #[test]
        fn replies_are_the_same_however_the_network_cuts_them(
            replies in prop::collection::vec((200u16..600, prop::collection::vec("[ -~]{0,40}", 1..4)), 1..6),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let mut bytes = Vec::new();
            for (code, lines) in &replies {
                for (at, line) in lines.iter().enumerate() {
                    let mark = if at + 1 == lines.len() { ' ' } else { '-' };
                    bytes.extend_from_slice(format!("{code}{mark}{line}\r\n").as_bytes());
                }
            }
            let whole = read(&bytes).unwrap();
            prop_assert_eq!(whole.len(), replies.len());

            let (mut reader, mut pieces, mut rest) = (ReplyReader::default(), Vec::new(), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                reader.push(piece);
                rest = after;
                while let Some(reply) = reader.next_reply().unwrap() {
                    pieces.push(reply);
                }
            }
            prop_assert_eq!(pieces, whole);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_grow(bytes in prop::collection::vec(any::<u8>(), 0..5_000)) {
            let mut reader = ReplyReader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_reply() {}
        }
    }
}
