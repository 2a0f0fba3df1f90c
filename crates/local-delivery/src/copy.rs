//! The bytes of one copy of a message, as they are read: the copy's own headers, then the content (R5).

use bytes::Bytes;

/// The headers that differ from copy to copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CopyHeaders(String);

impl CopyHeaders {
    /// The headers of a delivered copy (RFC 5321 §4.4: Return-Path; Delivered-To as Postfix and Dovecot write it).
    pub(crate) fn delivered(return_path: &str, delivered_to: &str) -> Self {
        // Addresses hold no line breaks; should one, it must not become a header of its own.
        let line = |text: &str| text.replace(['\r', '\n'], "");
        Self(format!("Return-Path: <{}>\r\nDelivered-To: {}\r\n", line(return_path), line(delivered_to)))
    }

    /// As kept beside a reference: both parts for a delivered copy, neither for an appended one.
    pub(crate) fn kept(return_path: Option<&str>, delivered_to: Option<&str>) -> Self {
        match (return_path, delivered_to) {
            (Some(return_path), Some(delivered_to)) => Self::delivered(return_path, delivered_to),
            _ => Self::default(),
        }
    }

    /// How many bytes they add.
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The part of `offset..offset + length` (of the bytes as read) that lies in the headers, and the range of the
    /// content that the rest is.
    pub(crate) fn cut(&self, offset: u64, length: u64) -> (Bytes, u64, u64) {
        let end = offset.saturating_add(length);
        let (from, to) = (offset.min(self.len()), end.min(self.len()));
        let head = Bytes::copy_from_slice(&self.0.as_bytes()[from as usize..to as usize]);
        let content_offset = offset.saturating_sub(self.len());
        let content_length = end.saturating_sub(self.len()).saturating_sub(content_offset);
        (head, content_offset, content_length)
    }
}

/// Where the body begins, if the end of the headers is among these bytes.
pub(crate) fn header_end(content: &[u8]) -> Option<usize> {
    if content.starts_with(b"\r\n") {
        return Some(2);
    }
    content.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_where_the_headers_end() {
        let headers = CopyHeaders::delivered("b@x", "a@y");
        let text = "Return-Path: <b@x>\r\nDelivered-To: a@y\r\n";
        let len = text.len() as u64;
        assert_eq!(headers.len(), len);
        for (offset, length, head, content) in [
            (0, u64::MAX, text, (0, u64::MAX - len)),
            (0, 6, "Return", (0, 0)),
            (len - 2, 5, "\r\n", (0, 3)),
            (len, 7, "", (0, 7)),
            (len + 9, 7, "", (9, 7)),
        ] {
            let (cut, at, n) = headers.cut(offset, length);
            assert_eq!((cut.as_ref(), (at, n)), (head.as_bytes(), content), "{offset}+{length}");
        }
        assert_eq!(CopyHeaders::kept(None, None).cut(3, 4), (Bytes::new(), 3, 4));
    }

    #[test]
    fn a_line_break_in_an_address_makes_no_header() {
        let headers = CopyHeaders::delivered("", "a@y\r\nBcc: all@y");
        assert_eq!(headers.0, "Return-Path: <>\r\nDelivered-To: a@yBcc: all@y\r\n");
    }

    #[test]
    fn the_header_section_ends_with_its_empty_line() {
        for (content, end) in
            [("A: b\r\n\r\nbody", Some(8)), ("A: b\r\n", None), ("\r\nbody", Some(2)), ("", None)]
        {
            assert_eq!(header_end(content.as_bytes()), end, "{content:?}");
        }
    }
}
