//! Names of folders.

use std::fmt;
use std::str::FromStr;

/// The folder where mail arrives; it always exists.
pub(crate) const INBOX: &str = "INBOX";

/// The folders that a mailbox has from the first day: their names and uses (RFC 6154 §2).
pub(crate) const FIRST_FOLDERS: [(&str, Option<&str>); 6] = [
    (INBOX, None),
    ("Sent", Some("\\Sent")),
    ("Drafts", Some("\\Drafts")),
    ("Trash", Some("\\Trash")),
    ("Junk", Some("\\Junk")),
    ("Archive", Some("\\Archive")),
];

const NAME_BYTES: usize = 255;
const LEVELS: usize = 16;

/// A name that a folder may have: levels with "/" between, none empty; INBOX in any case is INBOX.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FolderName(String);

/// Why a text is no name for a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FolderNameError {
    #[error("a folder's name has 1 to 255 bytes")]
    Length,
    #[error("a folder's name has at most 16 levels, none of them empty")]
    Level,
    #[error("a folder's name holds no control characters, and neither % nor *")]
    Character,
}

impl FolderName {
    pub(crate) fn inbox() -> Self {
        Self(INBOX.to_owned())
    }

    /// The use that a folder of this name is for (RFC 6154 §2).
    pub(crate) fn special_use(name: &str) -> Option<&'static str> {
        FIRST_FOLDERS.iter().find(|(first, _)| *first == name)?.1
    }

    /// An empty text on the wire stands for INBOX.
    pub(crate) fn or_inbox(text: &str) -> Result<Self, FolderNameError> {
        if text.is_empty() { Ok(Self::inbox()) } else { text.parse() }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a mailbox has it from the first day.
    pub(crate) fn is_first(&self) -> bool {
        FIRST_FOLDERS.iter().any(|(name, _)| *name == self.0)
    }

    /// Whether it is a level, or more, below `other`.
    pub(crate) fn is_below(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'))
    }

    pub(crate) fn is_inbox(&self) -> bool {
        self.0 == INBOX
    }
}

impl FromStr for FolderName {
    type Err = FolderNameError;

    fn from_str(text: &str) -> Result<Self, FolderNameError> {
        if text.is_empty() || text.len() > NAME_BYTES {
            return Err(FolderNameError::Length);
        }
        if text.split('/').count() > LEVELS || text.split('/').any(|level| level.trim().is_empty()) {
            return Err(FolderNameError::Level);
        }
        // RFC 3501 §5.1: the wildcards of LIST cannot be told from a name that holds them.
        if text.chars().any(|c| c.is_control() || matches!(c, '%' | '*')) {
            return Err(FolderNameError::Character);
        }
        // RFC 3501 §5.1: INBOX is case-insensitive, also as the first of several levels.
        let (first, rest) = text.split_at(text.find('/').unwrap_or(text.len()));
        Ok(Self(if first.eq_ignore_ascii_case(INBOX) { format!("{INBOX}{rest}") } else { text.to_owned() }))
    }
}

impl fmt::Display for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normal_once_parsed() {
        for (text, want) in [
            ("INBOX", Ok("INBOX")),
            ("inbox", Ok("INBOX")),
            ("Inbox/Lists", Ok("INBOX/Lists")),
            ("inboxes", Ok("inboxes")),
            ("Archive/2026", Ok("Archive/2026")),
            ("Größe", Ok("Größe")),
            ("", Err(FolderNameError::Length)),
            ("/a", Err(FolderNameError::Level)),
            ("a//b", Err(FolderNameError::Level)),
            ("a/", Err(FolderNameError::Level)),
            ("a\nb", Err(FolderNameError::Character)),
            ("a*", Err(FolderNameError::Character)),
        ] {
            assert_eq!(
                text.parse::<FolderName>().as_ref().map(FolderName::as_str),
                want.as_ref().map(|w| *w)
            );
        }
        assert_eq!("a".repeat(256).parse::<FolderName>(), Err(FolderNameError::Length));
    }
}
