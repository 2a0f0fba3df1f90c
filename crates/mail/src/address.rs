//! Mailbox addresses.

use std::fmt;
use std::str::FromStr;

use crate::{Domain, DomainError, Host};

/// The longest local part. RFC 5321 §4.5.3.1.1 promises senders no more than 64 octets, and §4.5.3.1 asks servers to
/// take more: VERP and SRS put a whole address of another into it. With the longest domain, a path is twice as long
/// as §4.5.3.1.3 has it.
const LOCAL_LIMIT: usize = 255;

/// A mailbox, `local@domain` (RFC 5321 §4.1.2; UTF-8 in the local part as RFC 6531 allows).
///
/// The local part is kept as it means, without quotes: `"a b"@x` and `a\ b@x` are not told apart. Its case is kept;
/// whoever looks it up folds it.
///
/// Real mailboxes have dots where a dot-string has none (`a..b@x`, `a.@x`). They are taken, as by other servers, and
/// written as they came: the quotes that they should have are unknown to the servers that gave such names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: Box<str>,
    host: Host,
    /// It came without quotes, with dots that would need them.
    stray_dots: bool,
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@`.
    #[error("the address has no domain")]
    NoDomain,
    /// The local part is empty, or neither atoms with dots nor a quoted string.
    #[error("the local part is malformed")]
    Local,
    /// Longer than 255 octets.
    #[error("the local part is longer than 255 octets")]
    LocalTooLong,
    /// What stands after the `@` is no domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl Address {
    /// Puts an address together from a local part as it means (not quoted) and a host.
    pub fn new(local: &str, host: Host) -> Result<Self, AddressError> {
        if local.is_empty() || local.chars().any(char::is_control) {
            return Err(AddressError::Local);
        }
        if local.len() > LOCAL_LIMIT {
            return Err(AddressError::LocalTooLong);
        }
        Ok(Self { local: local.into(), host, stray_dots: false })
    }

    /// The local part as it means, without quotes.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// What stands after the `@`.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The domain, unless the address ends in a literal.
    pub fn domain(&self) -> Option<&Domain> {
        self.host.name()
    }

    /// Whether a server without SMTPUTF8 can take it (the domain always is ASCII here).
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `local@domain` without angle brackets, comments or folding.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (local, host) = if text.starts_with('"') {
            let (local, rest) = unquote(text).ok_or(AddressError::Local)?;
            (local, rest.strip_prefix('@').ok_or(AddressError::NoDomain)?)
        } else {
            let (local, host) = text.rsplit_once('@').ok_or(AddressError::NoDomain)?;
            if !is_atoms_with_dots(local) {
                return Err(AddressError::Local);
            }
            (local.to_owned(), host)
        };
        if local.len() > LOCAL_LIMIT {
            return Err(AddressError::LocalTooLong);
        }
        let stray_dots = !text.starts_with('"') && !is_dot_string(&local);
        Ok(Self { stray_dots, ..Self::new(&local, host.parse()?)? })
    }
}

/// RFC 5321 §4.1.2 Dot-string; RFC 6531 §3.3 adds all of UTF-8 that is not ASCII.
fn is_dot_string(local: &str) -> bool {
    !local.is_empty() && local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// A dot-string, but with dots anywhere.
fn is_atoms_with_dots(local: &str) -> bool {
    local.chars().all(|c| c == '.' || is_atext(c)) && local.chars().any(is_atext)
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
}

/// Reads a quoted string at the start of `text`: its meaning, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut local = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((local, &text[at + 1..])),
            '\\' => local.push(chars.next().map(|(_, c)| c).filter(|c| (' '..='~').contains(c))?),
            c if c.is_control() => return None,
            c => local.push(c),
        }
    }
    None
}

impl fmt::Display for Address {
    /// As it stands in MAIL and RCPT: quoted where it must be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stray_dots || is_dot_string(&self.local) {
            return write!(f, "{}@{}", self.local, self.host);
        }
        f.write_str("\"")?;
        for c in self.local.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        write!(f, "\"@{}", self.host)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

/// Where failures are told: the argument of MAIL FROM (RFC 5321 §4.1.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: tell no one. Notices themselves carry it, so that none is answered by another.
    Null,
    /// Tell this mailbox.
    Mailbox(Address),
}

impl ReversePath {
    /// The mailbox, if there is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Mailbox(address) => Some(address),
        }
    }
}

impl FromStr for ReversePath {
    type Err = AddressError;

    /// The empty text is the null sender, all else an address without brackets.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::Null) } else { text.parse().map(Self::Mailbox) }
    }
}

impl fmt::Display for ReversePath {
    /// Without brackets; empty for the null sender.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().map_or(Ok(()), |address| address.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_to_what_they_mean() {
        for (text, local, shown) in [
            ("alice@example.net", "alice", "alice@example.net"),
            ("Alice+tag@EXAMPLE.net", "Alice+tag", "Alice+tag@example.net"),
            ("\"a b\"@example.net", "a b", "\"a b\"@example.net"),
            ("\"plain\"@example.net", "plain", "plain@example.net"),
            ("\"a\\\"b\"@example.net", "a\"b", "\"a\\\"b\"@example.net"),
            ("\"a@b\"@example.net", "a@b", "\"a@b\"@example.net"),
            ("a..b@example.net", "a..b", "a..b@example.net"),
            ("a.@example.net", "a.", "a.@example.net"),
            (".a@example.net", ".a", ".a@example.net"),
            ("\"a..b\"@example.net", "a..b", "\"a..b\"@example.net"),
            ("a@[192.0.2.1]", "a", "a@[192.0.2.1]"),
            ("jürgen@bücher.example", "jürgen", "jürgen@xn--bcher-kva.example"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.local(), address.to_string().as_str()), (local, shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, why) in [
            ("alice", AddressError::NoDomain),
            ("@example.net", AddressError::Local),
            ("..@example.net", AddressError::Local),
            ("a b@example.net", AddressError::Local),
            ("a<b@example.net", AddressError::Local),
            ("\"a@example.net", AddressError::Local),
            ("\"\"@example.net", AddressError::Local),
            ("\"a\"b@example.net", AddressError::NoDomain),
            ("a\r\n@example.net", AddressError::Local),
            ("a@", AddressError::Domain(DomainError::Empty)),
            ("a@b c", AddressError::Domain(DomainError::Label)),
        ] {
            assert_eq!(text.parse::<Address>(), Err(why), "{text}");
        }
        assert_eq!(format!("{}@x", "a".repeat(256)).parse::<Address>(), Err(AddressError::LocalTooLong));
    }

    /// RFC 5321 §4.5.3.1: what others make (VERP, SRS) may be longer than what we would.
    #[test]
    fn local_parts_of_others_may_be_long() {
        let text = format!("bounces+{}=example.org@lists.example.net", "a".repeat(200));
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }

    proptest::proptest! {
        #[test]
        fn what_was_parsed_parses_to_itself(
            text in r#"("[ -~ä]{0,8}"|[a-zä.+"]{0,8})@(([xX][nN]--)?[a-zA-Z0-9ä]{0,6}[.]?){1,3}"#,
        ) {
            if let Ok(address) = text.parse::<Address>() {
                proptest::prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }

        #[test]
        fn what_is_shown_parses_to_the_same(local in "[ -~äß]{1,30}") {
            let address = Address::new(&local, "example.net".parse().unwrap()).unwrap();
            proptest::prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }
    }
}
