//! Flags and keywords of a message (RFC 3501 §2.3.2).

use std::collections::BTreeSet;

/// The system flags and their bits in the store.
const SYSTEM: [(&str, i32); 5] =
    [("\\Seen", SEEN), ("\\Answered", 2), ("\\Flagged", 4), ("\\Deleted", DELETED), ("\\Draft", 16)];

/// The bit of `\Seen`: a message without it counts as unseen.
pub(crate) const SEEN: i32 = 1;
/// The bit of `\Deleted`.
pub(crate) const DELETED: i32 = 8;

/// A keyword may be so long, in bytes.
const KEYWORD_BYTES: usize = 255;
/// A call may name so many keywords.
const KEYWORDS: usize = 64;

/// A set of system flags (as bits) and keywords.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    /// The system flags.
    pub(crate) bits: i32,
    /// Keywords, sorted, as given.
    pub(crate) keywords: Vec<String>,
}

/// Why a text is no flag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagError {
    #[error("{0:?} is no system flag: \\Seen, \\Answered, \\Flagged, \\Deleted or \\Draft")]
    Unknown(String),
    #[error("{0:?} is no keyword: an IMAP atom of at most 255 bytes")]
    Keyword(String),
    #[error("there are more than 64 keywords")]
    TooMany,
}

impl Flags {
    /// Reads a list of flags as the API writes them; system flags in any case (RFC 3501 §9: case-insensitive).
    pub(crate) fn parse(names: &[String]) -> Result<Self, FlagError> {
        let mut bits = 0;
        let mut keywords = BTreeSet::new();
        for name in names {
            if name.starts_with('\\') {
                let known = SYSTEM.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                bits |= known.ok_or_else(|| FlagError::Unknown(name.clone()))?.1;
            } else if is_keyword(name) {
                keywords.insert(name.clone());
            } else {
                return Err(FlagError::Keyword(name.clone()));
            }
        }
        if keywords.len() > KEYWORDS {
            return Err(FlagError::TooMany);
        }
        Ok(Self { bits, keywords: keywords.into_iter().collect() })
    }

    /// These flags with `remove` taken away and `add` added; `None` when that changes nothing.
    pub(crate) fn changed(&self, add: &Self, remove: &Self) -> Option<Self> {
        let kept = self.keywords.iter().filter(|keyword| !remove.keywords.contains(keyword));
        let keywords: BTreeSet<&String> = kept.chain(&add.keywords).collect();
        let changed = Self {
            bits: (self.bits & !remove.bits) | add.bits,
            keywords: keywords.into_iter().cloned().collect(),
        };
        (changed != *self).then_some(changed)
    }

    /// The list as the API writes it: system flags first.
    pub(crate) fn names(bits: i32, keywords: Vec<String>) -> Vec<String> {
        let system = SYSTEM.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| (*name).to_owned());
        system.chain(keywords).collect()
    }
}

/// RFC 3501 §9: flag-keyword is an atom.
fn is_keyword(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= KEYWORD_BYTES
        && name.bytes().all(|b| b.is_ascii_graphic() && !br#"(){%*"\]"#.contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(names: &[&str]) -> Result<Flags, FlagError> {
        Flags::parse(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_go_there_and_back() {
        let flags = parse(&["$Forwarded", "\\seen", "\\Draft", "$Forwarded"]).unwrap();
        assert_eq!((flags.bits, flags.keywords.as_slice()), (17, &["$Forwarded".to_owned()][..]));
        assert_eq!(Flags::names(flags.bits, flags.keywords), ["\\Seen", "\\Draft", "$Forwarded"]);
    }

    #[test]
    fn a_change_that_changes_nothing_is_none() {
        let flags = parse(&["\\Seen", "a", "b"]).unwrap();
        for (add, remove, want) in [
            (&["\\Seen", "a"][..], &["\\Draft", "c"][..], None),
            (&["\\Draft", "c"], &["\\Seen", "a"], Some(["\\Draft", "b", "c"].as_slice())),
            (&["a"], &["a"], None),
        ] {
            let changed = flags.changed(&parse(add).unwrap(), &parse(remove).unwrap());
            assert_eq!(changed, want.map(|want| parse(want).unwrap()));
        }
    }

    #[test]
    fn what_is_no_flag_is_refused() {
        assert_eq!(parse(&["\\Recent"]), Err(FlagError::Unknown("\\Recent".into())));
        for name in ["", "a b", "a(b", "a\"", "ä", "a]"] {
            assert_eq!(parse(&[name]), Err(FlagError::Keyword(name.into())), "{name}");
        }
        let many: Vec<String> = (0..65).map(|n| format!("k{n}")).collect();
        assert_eq!(Flags::parse(&many), Err(FlagError::TooMany));
    }
}
