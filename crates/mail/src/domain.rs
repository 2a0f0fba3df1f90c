//! Domain names and address literals.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A domain name: A-labels, lower case, without a final dot, at most 253 octets (RFC 1035 §2.3.4, RFC 5890).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

/// Why a text is no domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// No text at all.
    #[error("the domain is empty")]
    Empty,
    /// Longer than DNS can carry.
    #[error("the domain is longer than 253 octets, or a label of it longer than 63")]
    TooLong,
    /// A label is empty, or begins or ends with a hyphen, or holds what a host name cannot.
    #[error("the domain has a label that no host name may have")]
    Label,
    /// `[...]` that holds neither an IPv4 nor an IPv6 address.
    #[error("the address literal holds no IP address")]
    Literal,
}

impl Domain {
    /// The name as A-labels in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as people write it (U-labels); the A-labels where they stand for nothing.
    pub fn to_unicode(&self) -> String {
        let (name, result) = idna::domain_to_unicode(&self.0);
        if result.is_ok() { name } else { self.0.to_string() }
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    /// Takes A-labels and U-labels (RFC 5890), upper and lower case, with or without a final dot.
    fn from_str(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        // Lower case first: `XN--` begins an A-label as `xn--` does (RFC 5890 §2.3.1).
        let text = text.to_ascii_lowercase();
        // The common case costs no table look-ups.
        let name = if text.is_ascii() && !text.contains("xn--") {
            text
        } else {
            idna::domain_to_ascii(&text).map_err(|_| DomainError::Label)?
        };
        if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
            return Err(DomainError::TooLong);
        }
        if name.split('.').all(is_label) { Ok(Self(name.into())) } else { Err(DomainError::Label) }
    }
}

/// A label of a host name (RFC 1123 §2.1), with the underscore that real domains have.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.0)
    }
}

/// What stands after the `@`, or after HELO: a name or an address literal (RFC 5321 §4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// `example.net`
    Name(Domain),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`
    Literal(IpAddr),
}

impl Host {
    /// The domain, unless it is a literal.
    pub fn name(&self) -> Option<&Domain> {
        match self {
            Self::Name(domain) => Some(domain),
            Self::Literal(_) => None,
        }
    }
}

impl FromStr for Host {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let Some(literal) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) else {
            return text.parse().map(Self::Name);
        };
        let ip = match literal.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
                literal[5..].parse::<Ipv6Addr>().map(IpAddr::V6).ok()
            }
            _ => literal.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
        };
        ip.map(Self::Literal).ok_or(DomainError::Literal)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(domain) => domain.fmt(f),
            Self::Literal(IpAddr::V4(ip)) => write!(f, "[{ip}]"),
            Self::Literal(IpAddr::V6(ip)) => write!(f, "[IPv6:{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_normal_once_parsed() {
        for (text, want) in [
            ("example.net", Ok("example.net")),
            ("Example.NET.", Ok("example.net")),
            ("bücher.example", Ok("xn--bcher-kva.example")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("_dmarc.example", Ok("_dmarc.example")),
            ("localhost", Ok("localhost")),
            ("", Err(DomainError::Empty)),
            (".", Err(DomainError::Empty)),
            ("a..b", Err(DomainError::Label)),
            ("-a.b", Err(DomainError::Label)),
            ("a b.c", Err(DomainError::Label)),
            ("XN--BCHER-KVA.example", Ok("xn--bcher-kva.example")),
            // No A-label: it stands for nothing.
            ("xn--a.example", Err(DomainError::Label)),
            ("XN--A.example", Err(DomainError::Label)),
        ] {
            assert_eq!(
                text.parse::<Domain>().as_ref().map(Domain::as_str),
                want.as_ref().map(|w| *w),
                "{text}"
            );
        }
        let long = format!("{}.example", "a".repeat(64));
        assert_eq!(long.parse::<Domain>(), Err(DomainError::TooLong));
    }

    proptest::proptest! {
        /// What one service takes, all others read: a domain travels as its text.
        #[test]
        fn what_was_parsed_parses_to_itself(
            text in r"(([xX][nN]--)?[-a-zA-Z0-9_äÄßｘＸ用]{0,8}[.。．]?){1,4}",
        ) {
            if let Ok(domain) = text.parse::<Domain>() {
                proptest::prop_assert_eq!(domain.to_string().parse::<Domain>(), Ok(domain));
            }
        }
    }

    #[test]
    fn literals_go_there_and_back() {
        for text in ["[192.0.2.1]", "[IPv6:2001:db8::1]", "example.net"] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), text);
        }
        for text in ["[300.0.0.1]", "[IPv6:zz]", "[example.net]", "[]"] {
            assert_eq!(text.parse::<Host>(), Err(DomainError::Literal), "{text}");
        }
    }
}
