//! The fields that say what a body is.

/// A header section, not copied: its fields are ranges of it.
#[derive(Debug)]
pub(super) struct Header<'a> {
    /// Each field with its line ends, continuations included.
    fields: Vec<&'a [u8]>,
}

/// Content-Type (RFC 2045 §5.1), as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContentType {
    /// `type/subtype` in lower case.
    pub(super) name: String,
    pub(super) boundary: Option<String>,
}

/// Content-Transfer-Encoding (RFC 2045 §6), as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferEncoding {
    /// 7bit, 8bit, binary, or nothing said: the body is what it is.
    Identity,
    /// Quoted-printable, base64, or what we do not know.
    Encoded,
}

const ENCODING: &str = "content-transfer-encoding";

/// The header section and the body; the empty line between them belongs to neither.
pub(super) fn split(entity: &[u8]) -> (&[u8], &[u8]) {
    if let Some(body) = entity.strip_prefix(b"\r\n") {
        return (&[], body);
    }
    match memchr::memmem::find(entity, b"\r\n\r\n") {
        Some(at) => (&entity[..at + 2], &entity[at + 4..]),
        None => (entity, &[]),
    }
}

impl<'a> Header<'a> {
    pub(super) fn parse(section: &'a [u8]) -> Self {
        let (mut fields, mut start, mut at) = (Vec::new(), 0, 0);
        for line in section.split_inclusive(|byte| *byte == b'\n') {
            if at > start && !line.starts_with(b" ") && !line.starts_with(b"\t") {
                fields.push(&section[start..at]);
                start = at;
            }
            at += line.len();
        }
        if at > start {
            fields.push(&section[start..at]);
        }
        Self { fields }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn value(&self, name: &str) -> Option<String> {
        self.fields.iter().find_map(|field| value_of(field, name))
    }

    pub(super) fn content_type(&self) -> Option<ContentType> {
        let value = without_comments(&self.value("content-type")?);
        let (name, parameters) = value.split_once(';').unwrap_or((&value, ""));
        Some(ContentType { boundary: boundary(parameters), ..ContentType::named(name) })
    }

    pub(super) fn transfer_encoding(&self) -> TransferEncoding {
        let value = self.value(ENCODING).map(|value| without_comments(&value).trim().to_ascii_lowercase());
        match value.as_deref() {
            None | Some("7bit" | "8bit" | "binary" | "") => TransferEncoding::Identity,
            Some(_) => TransferEncoding::Encoded,
        }
    }

    /// Writes the section with this encoding: in its place where one is named, else at the end.
    pub(super) fn write_with_encoding(&self, encoding: &str, out: &mut Vec<u8>) {
        let field = format!("Content-Transfer-Encoding: {encoding}\r\n");
        let mut written = false;
        for original in &self.fields {
            if value_of(original, ENCODING).is_none() {
                out.extend_from_slice(original);
            } else if !written {
                out.extend_from_slice(field.as_bytes());
                written = true;
            }
        }
        if !written {
            if self.fields.last().is_some_and(|last| !last.ends_with(b"\n")) {
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(field.as_bytes());
        }
    }
}

impl ContentType {
    pub(super) fn named(name: &str) -> Self {
        let name = name.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
        Self { name, boundary: None }
    }
}

/// The value of a field when it has this name (lower case), unfolded.
fn value_of(field: &[u8], name: &str) -> Option<String> {
    let colon = field.iter().position(|byte| *byte == b':')?;
    let (found, value) = field.split_at(colon);
    if !found.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()) {
        return None;
    }
    Some(String::from_utf8_lossy(&value[1..]).replace(['\r', '\n'], ""))
}

/// The parameter `boundary`, quoted or not.
fn boundary(mut parameters: &str) -> Option<String> {
    loop {
        let (name, rest) = parameters.split_once('=')?;
        let rest = rest.trim_start();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                let (value, rest) = rest.split_once(';').unwrap_or((rest, ""));
                (value.trim_end().to_owned(), rest)
            }
        };
        let name = name.trim_matches(|c: char| c.is_whitespace() || c == ';');
        if name.eq_ignore_ascii_case("boundary") {
            return (!value.is_empty()).then_some(value);
        }
        parameters = rest;
    }
}

/// The meaning of a quoted string whose first quote is gone, and what follows it.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// RFC 5322 §3.2.2: what stands in parentheses, outside of quotes, is for people.
fn without_comments(value: &str) -> String {
    let (mut out, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    for c in value.chars() {
        let was_escaped = escaped;
        escaped = c == '\\' && !was_escaped;
        match c {
            '"' if depth == 0 && !was_escaped => quoted = !quoted,
            '(' if !quoted && !was_escaped => {
                depth += 1;
                continue;
            }
            ')' if !quoted && !was_escaped && depth > 0 => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read() {
        for (field, name, boundary) in [
            ("Content-Type: text/plain\r\n", "text/plain", None),
            ("content-type : Multipart/Mixed; boundary=abc\r\n", "multipart/mixed", Some("abc")),
            (
                "Content-Type: multipart/mixed;\r\n charset=\"a;b=c\";\r\n\tBOUNDARY=\"a \\\"b\"\r\n",
                "multipart/mixed",
                Some("a \"b"),
            ),
            (
                "Content-Type: multipart/mixed (a; boundary=no); boundary=yes ; x=y\r\n",
                "multipart/mixed",
                Some("yes"),
            ),
            ("Content-Type: multipart/mixed; boundary=\"(x)\"\r\n", "multipart/mixed", Some("(x)")),
            ("Content-Type: multipart/mixed; boundary=\r\n", "multipart/mixed", None),
        ] {
            let found = Header::parse(field.as_bytes()).content_type().unwrap();
            assert_eq!((found.name.as_str(), found.boundary.as_deref()), (name, boundary), "{field}");
        }
        assert_eq!(Header::parse(b"Subject: x\r\n").content_type(), None);
    }

    #[test]
    fn the_encoding_is_set_in_its_place() {
        for (section, wanted) in [
            ("A: 1\r\nB: 2\r\n", "A: 1\r\nB: 2\r\nContent-Transfer-Encoding: base64\r\n"),
            (
                "A: 1\r\nContent-transfer-encoding:\r\n 8bit\r\nB: 2\r\n 3\r\n",
                "A: 1\r\nContent-Transfer-Encoding: base64\r\nB: 2\r\n 3\r\n",
            ),
            ("", "Content-Transfer-Encoding: base64\r\n"),
        ] {
            let mut out = Vec::new();
            Header::parse(section.as_bytes()).write_with_encoding("base64", &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        }
    }

    #[test]
    fn header_and_body_part_at_the_first_empty_line() {
        assert_eq!(split(b"A: 1\r\n\r\nb\r\n\r\nc"), (b"A: 1\r\n".as_slice(), b"b\r\n\r\nc".as_slice()));
        assert_eq!(split(b"\r\nb"), (b"".as_slice(), b"b".as_slice()));
        assert_eq!(split(b"A: 1\r\n"), (b"A: 1\r\n".as_slice(), b"".as_slice()));
    }
}
