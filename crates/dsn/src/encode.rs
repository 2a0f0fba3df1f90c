//! Text into lines that every mail server carries: printable ASCII, at most 76 octets where it can be cut.

use std::fmt::Write as _;

const WIDTH: usize = 76;

/// Printable ASCII on one line: line breaks and tabs become spaces, all else that is not printable `?`.
pub(crate) fn printable(text: &str) -> String {
    let safe = text.chars().map(|c| match c {
        '\t' | '\r' | '\n' => ' ',
        ' '..='~' => c,
        _ => '?',
    });
    safe.collect::<String>().trim().to_owned()
}

/// Writes `Name: value`, folded before spaces (RFC 5322 §2.2.3). The value is printable ASCII; a word that no line
/// can hold is cut.
pub(crate) fn header(out: &mut String, name: &str, value: &str) {
    let mut line = format!("{name}:");
    // A line of nothing but spaces would end the header section for some: spaces go with the word after them.
    let mut spaces = String::from(" ");
    for word in value.trim().split(' ') {
        if word.is_empty() {
            // Of a long run some are enough: it would fill a line of its own.
            if spaces.len() < 8 {
                spaces.push(' ');
            }
            continue;
        }
        // Not before the first word: a field that begins with an empty line is folded badly for some readers.
        if line.len() + spaces.len() + word.len() > WIDTH && line.len() > name.len() + 1 {
            out.push_str(&line);
            out.push_str("\r\n");
            line.clear();
        }
        line.push_str(&spaces);
        spaces = String::from(" ");
        let mut rest = word;
        while line.len() + rest.len() > 900 {
            let (head, tail) = rest.split_at(900 - line.len().min(899));
            let _ = write!(out, "{line}{head}\r\n");
            line = String::from(" ");
            rest = tail;
        }
        line.push_str(rest);
    }
    out.push_str(&line);
    out.push_str("\r\n");
}

/// A header's text as it stands in ASCII: as it is, or as encoded words (RFC 2047) with spaces between.
pub(crate) fn unstructured(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_ascii() && !text.contains("=?") {
        return text.trim().to_owned();
    }
    let mut words = vec![String::new()];
    for c in text.trim().chars() {
        let mut bytes = [0; 4];
        let mut encoded = String::new();
        for byte in c.encode_utf8(&mut bytes).bytes() {
            match byte {
                b' ' => encoded.push('_'),
                b if b.is_ascii_alphanumeric() => encoded.push(char::from(b)),
                b => encoded.push_str(&format!("={b:02X}")),
            }
        }
        // RFC 2047 §2: an encoded word has at most 75 characters; "=?utf-8?Q?" and "?=" take 12.
        match words.last_mut() {
            Some(word) if word.len() + encoded.len() <= 60 => word.push_str(&encoded),
            _ => words.push(encoded),
        }
    }
    words.iter().map(|word| format!("=?utf-8?Q?{word}?=")).collect::<Vec<_>>().join(" ")
}

/// RFC 6533 §3 utf-8-addr-xtext: `jürgen` as `j\x{FC}rgen`.
pub(crate) fn utf8_xtext(address: &str) -> String {
    address.chars().fold(String::new(), |mut out, c| {
        if matches!(c, '!'..='~') && !matches!(c, '\\' | '+' | '=') {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:02X}}}", u32::from(c));
        }
        out
    })
}

/// The way back from [`utf8_xtext`]; what is not so encoded stays as it is.
pub(crate) fn from_utf8_xtext(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x{") {
        out.push_str(before);
        let decoded = after
            .split_once('}')
            .and_then(|(hex, tail)| Some((char::from_u32(u32::from_str_radix(hex, 16).ok()?)?, tail)));
        match decoded {
            Some((c, tail)) => {
                out.push(c);
                rest = tail;
            }
            None => {
                out.push_str("\\x{");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// RFC 2045 §6.7 of lines that end in CRLF; any other octets are encoded.
pub(crate) fn quoted_printable(content: &[u8]) -> String {
    let mut out = String::with_capacity(content.len() + content.len() / 16);
    let mut column = 0;
    let mut at = 0;
    while let Some(&byte) = content.get(at) {
        let next_is_break = content[at + 1..].is_empty() || content[at + 1..].starts_with(b"\r\n");
        if content[at..].starts_with(b"\r\n") {
            out.push_str("\r\n");
            column = 0;
            at += 2;
            continue;
        }
        let literal = match byte {
            b' ' | b'\t' => !next_is_break,
            b'=' => false,
            b'!'..=b'~' => true,
            _ => false,
        };
        let width = if literal { 1 } else { 3 };
        // A line has 76 octets at most, "=" of a soft break included.
        if column + width > WIDTH - 1 {
            out.push_str("=\r\n");
            column = 0;
        }
        if literal {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "={byte:02X}");
        }
        column += width;
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_fold_before_words() {
        let mut out = String::new();
        header(&mut out, "Name", &"word ".repeat(30));
        assert!(
            out.lines().count() == 3 && out.lines().skip(1).all(|line| line.starts_with(" word")),
            "{out}"
        );
        out.clear();
        header(&mut out, "Name", &"x".repeat(2500));
        assert!(out.lines().all(|line| line.len() <= 998), "{out}");
        out.clear();
        header(&mut out, "Name", "a  b");
        assert_eq!(out, "Name: a  b\r\n");
        out.clear();
        header(&mut out, "Name", &format!("a{}b", " ".repeat(950)));
        assert!(out.lines().all(|line| !line.trim().is_empty() && line.len() <= 998), "{out}");
    }

    #[test]
    fn utf8_addresses_have_an_ascii_form() {
        for (address, form) in [
            ("jürgen@example.net", "j\\x{FC}rgen@example.net"),
            ("用户@example.net", "\\x{7528}\\x{6237}@example.net"),
            ("a+ü@example.net", "a\\x{2B}\\x{FC}@example.net"),
            ("back\\slash@example.net", "back\\x{5C}slash@example.net"),
        ] {
            assert_eq!(utf8_xtext(address), form);
            assert_eq!(from_utf8_xtext(form), address);
        }
        assert_eq!(from_utf8_xtext("a\\x{zz}b\\x{"), "a\\x{zz}b\\x{");
    }

    #[test]
    fn quoted_printable_keeps_to_its_lines() {
        for (content, encoded) in
            [("plain\r\n", "plain\r\n"), ("a=b \r\nc ", "a=3Db=20\r\nc=20"), ("ü\n\0", "=C3=BC=0A=00")]
        {
            assert_eq!(quoted_printable(content.as_bytes()), encoded);
        }
        assert!(quoted_printable(&[b'='; 500]).lines().all(|line| line.len() <= 76));
    }

    #[test]
    fn subjects_become_encoded_words() {
        assert_eq!(unstructured("plain"), "plain");
        assert_eq!(unstructured("Grüße an alle"), "=?utf-8?Q?Gr=C3=BC=C3=9Fe_an_alle?=");
        assert!(unstructured(&"ü".repeat(100)).split(' ').all(|word| word.len() <= 75));
    }
}
