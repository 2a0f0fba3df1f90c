//! The parts of a multipart (RFC 2046 §5.1.1).

/// A multipart cut at its delimiters; put together again in order it is what it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pieces<'a> {
    pub(super) preamble: &'a [u8],
    /// The delimiter, from the line end that belongs to it to its own, and what follows up to the next.
    pub(super) parts: Vec<(&'a [u8], &'a [u8])>,
    /// From the last delimiter on.
    pub(super) epilogue: &'a [u8],
}

/// `None` when there is not even one delimiter. A multipart that is cut off ends with its last part.
pub(super) fn split<'a>(body: &'a [u8], boundary: &str) -> Option<Pieces<'a>> {
    // Of each delimiter, where it begins and ends.
    let mut cuts: Vec<(usize, usize)> = Vec::new();
    let mut closing = body.len();
    let mut at = 0;
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let end = at + line.len();
        if let Some(delimiter) = delimiter(line, boundary) {
            // The line end before it is its own, unless it is already the one of a delimiter just before.
            let earliest = cuts.last().map_or(0, |(_, end)| *end);
            let start = (at - line_end_before(body, at)).max(earliest);
            match delimiter {
                Delimiter::Next => cuts.push((start, end)),
                Delimiter::Last => {
                    closing = start;
                    break;
                }
            }
        }
        at = end;
    }
    let (first, _) = cuts.first()?;
    let ends = cuts.iter().skip(1).map(|(start, _)| *start).chain([closing]);
    let parts = cuts.iter().zip(ends).map(|((start, end), next)| (&body[*start..*end], &body[*end..next]));
    Some(Pieces { preamble: &body[..*first], parts: parts.collect(), epilogue: &body[closing..] })
}

enum Delimiter {
    Next,
    Last,
}

fn delimiter(line: &[u8], boundary: &str) -> Option<Delimiter> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary.as_bytes())?;
    let (kind, rest) = match rest.strip_prefix(b"--") {
        Some(rest) => (Delimiter::Last, rest),
        None => (Delimiter::Next, rest),
    };
    rest.iter().all(u8::is_ascii_whitespace).then_some(kind)
}

/// The length of the line end before `at`.
fn line_end_before(body: &[u8], at: usize) -> usize {
    match &body[..at] {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n'] => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_multipart_comes_apart() {
        let pieces =
            split(b"pre\r\n--b\r\nA: 1\r\n\r\none\r\n--b  \r\n\r\ntwo\r\n\r\n--b--\r\npost", "b").unwrap();
        assert_eq!(pieces.preamble, b"pre");
        assert_eq!(
            pieces.parts,
            [(b"\r\n--b\r\n".as_slice(), b"A: 1\r\n\r\none".as_slice()), (b"\r\n--b  \r\n", b"\r\ntwo\r\n")]
        );
        assert_eq!(pieces.epilogue, b"\r\n--b--\r\npost");
    }

    #[test]
    fn what_only_looks_like_a_delimiter_is_none() {
        assert_eq!(split(b"--bb\r\n-- b\r\nx--b\r\n", "b"), None);
        let cut_off = split(b"--b\r\n\r\none", "b").unwrap();
        assert_eq!((cut_off.parts[0].1, cut_off.epilogue), (b"\r\none".as_slice(), b"".as_slice()));
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_whole(body in "(--b|--|b|\r\n|\n| |x){0,40}") {
            if let Some(pieces) = split(body.as_bytes(), "b") {
                let mut whole = pieces.preamble.to_vec();
                for (delimiter, part) in pieces.parts {
                    whole.extend_from_slice(delimiter);
                    whole.extend_from_slice(part);
                }
                whole.extend_from_slice(pieces.epilogue);
                prop_assert_eq!(String::from_utf8(whole).unwrap(), body);
            }
        }
    }
}
