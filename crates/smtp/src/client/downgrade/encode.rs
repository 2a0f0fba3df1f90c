//! Quoted-printable and base64 (RFC 2045 §6.7, §6.8).

/// No line of either is longer.
const LINE: usize = 76;

/// Appends the text as quoted-printable; its CRLFs stay line ends.
pub(super) fn quoted_printable(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n");
        quoted_line(&rest[..end.unwrap_or(rest.len())], out);
        let Some(end) = end else { return };
        out.extend_from_slice(b"\r\n");
        rest = &rest[end + 2..];
    }
}

fn quoted_line(line: &[u8], out: &mut Vec<u8>) {
    let mut width = 0;
    for (at, byte) in line.iter().enumerate() {
        let last = at + 1 == line.len();
        let plain = match byte {
            b'=' => false,
            b'!'..=b'~' => true,
            // White space at the end of a line gets lost on the way.
            b' ' | b'\t' => !last,
            _ => false,
        };
        let length = if plain { 1 } else { 3 };
        // The last column is for the soft line end, unless none follows.
        if width + length > LINE - usize::from(!last) {
            out.extend_from_slice(b"=\r\n");
            width = 0;
        }
        if plain {
            out.push(*byte);
        } else {
            let hex = |digit: u8| b"0123456789ABCDEF"[usize::from(digit)];
            out.extend([b'=', hex(byte >> 4), hex(byte & 15)]);
        }
        width += length;
    }
}

/// Appends the bytes as base64, a line end between its lines.
pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    for (at, line) in bytes.chunks(LINE / 4 * 3).enumerate() {
        if at > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend(data_encoding::BASE64.encode(line).into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &[u8]) -> String {
        let mut out = Vec::new();
        quoted_printable(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// As a reader does it (RFC 2045 §6.7).
    fn unquoted(text: &str) -> Vec<u8> {
        let joined = text.replace("=\r\n", "");
        let (mut out, mut rest) = (Vec::new(), joined.as_bytes());
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte == b'=' {
                out.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            } else {
                out.push(*byte);
            }
        }
        out
    }

    #[test]
    fn text_is_quoted() {
        for (text, wanted) in [
            ("grün = green\r\n", "gr=C3=BCn =3D green\r\n"),
            ("a \r\nb\t", "a=20\r\nb=09"),
            ("a\rb\nc", "a=0Db=0Ac"),
            ("", ""),
        ] {
            assert_eq!(quoted(text.as_bytes()), wanted);
        }
        assert_eq!(quoted(&[b'a'; 76]), "a".repeat(76));
        assert_eq!(quoted(&[b'a'; 77]), format!("{}=\r\naa", "a".repeat(75)));
    }

    proptest! {
        #[test]
        fn what_was_quoted_reads_the_same(text in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'a')], 0..400)) {
            let encoded = quoted(&text);
            prop_assert!(encoded.is_ascii());
            prop_assert!(encoded.split("\r\n").all(|line| line.len() <= 76 && !line.ends_with([' ', '\t'])));
            prop_assert_eq!(unquoted(&encoded), text);
        }

        #[test]
        fn what_is_in_base64_reads_the_same(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut out = Vec::new();
            base64(&bytes, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert!(text.split("\r\n").all(|line| line.len() <= 76));
            let decoded = data_encoding::BASE64.decode(text.replace("\r\n", "").as_bytes()).unwrap();
            prop_assert_eq!(decoded, bytes);
        }
    }
}
