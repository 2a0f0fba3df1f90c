//! The header fields that a list of messages shows, parsed from the start of the content.

use mail_parser::{Address, HeaderName, Message, MessageParser};
use time::OffsetDateTime;

/// How much of a content is read for it: what stands behind is not looked for.
pub(crate) const PREFIX_BYTES: usize = 64 * 1024;

/// Decoded header fields; empty where absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    pub(crate) message_id: String,
    pub(crate) subject: String,
    pub(crate) from: String,
    pub(crate) date: Option<OffsetDateTime>,
}

impl Summary {
    /// Parses the first bytes of a content; what cannot be read is left out.
    pub(crate) fn parse(prefix: &[u8]) -> Self {
        let parser = MessageParser::new()
            .header_text(HeaderName::Subject)
            .header_id(HeaderName::MessageId)
            .header_address(HeaderName::From)
            .header_date(HeaderName::Date)
            .default_header_ignore();
        parser.parse_headers(prefix).as_ref().map_or_else(Self::default, Self::of)
    }

    fn of(message: &Message<'_>) -> Self {
        let date = message.date().filter(|date| date.is_valid());
        Self {
            message_id: message.message_id().map(|id| format!("<{id}>")).unwrap_or_default(),
            subject: message.subject().map(one_line).unwrap_or_default(),
            from: message.from().map(mailboxes).unwrap_or_default(),
            date: date.and_then(|date| OffsetDateTime::from_unix_timestamp(date.to_timestamp()).ok()),
        }
    }
}

/// `Name <address>, address`, as people read it.
fn mailboxes(from: &Address<'_>) -> String {
    let one = |mailbox: &mail_parser::Addr<'_>| match (mailbox.name(), mailbox.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (Some(name), None) => name.to_owned(),
        (None, address) => address.unwrap_or_default().to_owned(),
    };
    one_line(&from.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Encoded words may hide line breaks (RFC 2047); a terminal must not get them.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded() {
        let summary = Summary::parse(
            b"Received: by x\r\nFrom: =?utf-8?q?J=C3=BCrgen?= <j@x.example>, k@x.example\r\n\
              Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n =?utf-8?q?_an_alle?=\r\nMessage-ID: <1@x.example>\r\n\
              Date: Thu, 13 Feb 1969 23:32:54 -0330\r\n\r\nbody",
        );
        assert_eq!(summary.from, "Jürgen <j@x.example>, k@x.example");
        assert_eq!(summary.subject, "Grüße an alle");
        assert_eq!(summary.message_id, "<1@x.example>");
        assert_eq!(summary.date.unwrap().unix_timestamp(), -27_723_426);
    }

    #[test]
    fn what_is_absent_or_broken_is_empty() {
        for content in ["", "\r\nbody", "no header at all", "Date: never\r\nSubject:\r\n\r\n", "From: \r\n"] {
            assert_eq!(Summary::parse(content.as_bytes()), Summary::default(), "{content:?}");
        }
        assert_eq!(Summary::parse(b"Subject: =?utf-8?q?a=0D=0AB=1B?=\r\n\r\n").subject, "a  B ");
    }
}
