//! Replies and their enhanced codes.

use std::fmt;
use std::str::FromStr;

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnhancedStatus {
    class: u8,
    subject: u16,
    detail: u16,
}

/// Why a text is no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// Not `2.x.y`, `4.x.y` or `5.x.y`.
    #[error("an enhanced status code is 2, 4 or 5, and two numbers below 1000, with dots between")]
    Enhanced,
    /// Not 2yz, 3yz, 4yz or 5yz.
    #[error("a reply code has three digits and begins with 2 to 5")]
    Code,
}

impl EnhancedStatus {
    /// A code out of its three numbers. For constants: a class other than 2, 4 and 5 is a mistake of the caller.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        assert!(matches!(class, 2 | 4 | 5) && subject < 1000 && detail < 1000);
        Self { class, subject, detail }
    }

    /// 2, 4 or 5.
    pub fn class(self) -> u8 {
        self.class
    }

    /// What it is about: addressing, mailbox, system, network ... (RFC 3463 §3).
    pub fn subject(self) -> u16 {
        self.subject
    }

    /// The number below the subject.
    pub fn detail(self) -> u16 {
        self.detail
    }

    /// The same subject and detail in another class (2, 4 or 5): a temporary failure that has become permanent.
    pub const fn with_class(self, class: u8) -> Self {
        Self::new(class, self.subject, self.detail)
    }

    /// The code to assume of a reply that carries none.
    pub fn of_reply(code: u16) -> Self {
        match code / 100 {
            2 | 3 => Self::new(2, 0, 0),
            4 => Self::new(4, 0, 0),
            _ => Self::new(5, 0, 0),
        }
    }
}

impl FromStr for EnhancedStatus {
    type Err = StatusError;

    fn from_str(text: &str) -> Result<Self, StatusError> {
        let mut numbers = text.split('.').map(|part| match part.len() {
            1..=3 if part.bytes().all(|b| b.is_ascii_digit()) => part.parse::<u16>().ok(),
            _ => None,
        });
        match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten(), numbers.next()) {
            (Some(class @ (2 | 4 | 5)), Some(subject), Some(detail), None) => {
                Ok(Self { class: class as u8, subject, detail })
            }
            _ => Err(StatusError::Enhanced),
        }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// What an SMTP server said, or what Posthorn says in its place: reply code, enhanced code, text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Status {
    code: u16,
    enhanced: EnhancedStatus,
    text: String,
    words: Words,
}

/// Whose words a status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Words {
    /// Posthorn's own.
    #[default]
    Own,
    /// Those of a server that was talked to.
    Said,
    /// The same, but it gave no enhanced code, or one that disagrees with its reply code: that one is assumed.
    SaidBare,
}

impl Status {
    /// A status of Posthorn's own. The code and the enhanced code are constants of the caller and must agree in their
    /// class (RFC 3463 §3); line breaks in the text become spaces.
    pub fn new(code: u16, enhanced: EnhancedStatus, text: impl Into<String>) -> Self {
        debug_assert!(
            (200..600).contains(&code) && (code >= 400) == (enhanced.class >= 4),
            "{code} {enhanced}"
        );
        let mut text = text.into();
        if text.contains(['\r', '\n']) {
            text = text.replace(['\r', '\n'], " ");
        }
        Self { code, enhanced, text, words: Words::Own }
    }

    /// The same, as the words of somebody.
    #[must_use]
    pub fn in_words(self, words: Words) -> Self {
        Self { words, ..self }
    }

    /// What a server said. Where the enhanced code disagrees with the reply code, the reply code is believed.
    pub fn said(code: u16, enhanced: Option<EnhancedStatus>, text: &str) -> Result<Self, StatusError> {
        let status = Self::received(code, enhanced, text)?;
        let words = if enhanced == Some(status.enhanced) { Words::Said } else { Words::SaidBare };
        Ok(status.in_words(words))
    }

    /// A status as another service gave it; of the codes as [`Self::said`].
    pub fn received(code: u16, enhanced: Option<EnhancedStatus>, text: &str) -> Result<Self, StatusError> {
        if !(200..600).contains(&code) {
            return Err(StatusError::Code);
        }
        let assumed = EnhancedStatus::of_reply(code);
        let enhanced = match enhanced {
            Some(given) if given.class == assumed.class => given,
            Some(given) => given.with_class(assumed.class),
            None => assumed,
        };
        Ok(Self::new(code, enhanced, text))
    }

    /// The reply code, 200 to 599.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code.
    pub fn enhanced(&self) -> EnhancedStatus {
        self.enhanced
    }

    /// Whose words it is.
    pub fn words(&self) -> Words {
        self.words
    }

    /// As it was said: without an enhanced code that is only assumed.
    pub fn quoted(&self) -> String {
        match self.words {
            Words::SaidBare => format!("{} {}", self.code, self.text),
            Words::Own | Words::Said => self.to_string(),
        }
    }

    /// The text, one line.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 4yz: trying again later may help.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5yz: trying again will not help.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.code, self.enhanced, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_go_there_and_back() {
        for text in ["2.0.0", "4.4.7", "5.1.10", "5.7.999"] {
            assert_eq!(text.parse::<EnhancedStatus>().unwrap().to_string(), text);
        }
        for text in ["", "5", "5.1", "5.1.1.1", "3.1.1", "5.1000.1", "5.x.1", "5..1", "+5.1.1"] {
            assert_eq!(text.parse::<EnhancedStatus>(), Err(StatusError::Enhanced), "{text}");
        }
    }

    #[test]
    fn a_reply_code_outweighs_the_enhanced_code() {
        let enhanced = "5.2.2".parse().ok();
        assert_eq!(Status::received(452, enhanced, "full").unwrap().to_string(), "452 4.2.2 full");
        assert_eq!(Status::received(250, None, "ok").unwrap().to_string(), "250 2.0.0 ok");
        assert_eq!(Status::received(99, None, ""), Err(StatusError::Code));
    }

    #[test]
    fn a_server_is_quoted_as_it_spoke() {
        for (enhanced, quoted) in
            [(Some("5.1.1"), "550 5.1.1 no"), (None, "550 no"), (Some("4.1.1"), "550 no")]
        {
            let enhanced = enhanced.and_then(|text| text.parse().ok());
            assert_eq!(Status::said(550, enhanced, "no").unwrap().quoted(), quoted);
        }
        assert_eq!(Status::new(550, EnhancedStatus::new(5, 0, 0), "no").quoted(), "550 5.0.0 no");
    }
}
