//! The line that says how a message came (RFC 5321 §4.4).

use std::fmt::Write as _;
use std::net::IpAddr;

use posthorn_mail::{Host, MessageId, Recipient};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// What a Received line tells.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    /// What the client called itself; `None` where it has no such word (gRPC): its address stands for it.
    pub(crate) from: Option<&'a str>,
    /// The client's address.
    pub(crate) client: IpAddr,
    /// This server's name.
    pub(crate) by: &'a str,
    /// `ESMTP` and the like.
    pub(crate) protocol: &'a str,
    /// TLS version and cipher.
    pub(crate) tls: Option<&'a str>,
    /// The message's id.
    pub(crate) id: MessageId,
    /// The envelope's recipients: a single one is named, several never (that would tell them of each other).
    pub(crate) recipients: &'a [Recipient],
    /// When the message began to come.
    pub(crate) at: OffsetDateTime,
}

impl Received<'_> {
    /// The line, folded, with its CRLF.
    pub(crate) fn line(&self) -> String {
        let client = Host::Literal(self.client.to_canonical());
        let mut line = String::with_capacity(256);
        self.write(&mut line, &client).expect("a String takes all that is written to it");
        line
    }

    fn write(&self, line: &mut String, client: &Host) -> std::fmt::Result {
        match self.from {
            Some(from) if from.parse::<Host>().is_ok() => {
                write!(line, "Received: from {from} ({client})\r\n")?;
            }
            // RFC 5321 §4.4: only a name of a host can stand there.
            Some(from) => write!(line, "Received: from {client} ({})\r\n", comment(from))?,
            None => write!(line, "Received: from {client}\r\n")?,
        }
        write!(line, "\tby {} with {} id {}", self.by, self.protocol, self.id)?;
        if let Some(tls) = self.tls {
            write!(line, "\r\n\t({tls})")?;
        }
        if let [recipient] = self.recipients {
            write!(line, "\r\n\tfor <{}>", recipient.address)?;
        }
        write!(line, ";\r\n\t{}\r\n", date(self.at))
    }
}

/// A word in a comment (RFC 5322 §3.2.2): nothing of it ends the comment, or the line.
fn comment(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    for c in word.chars() {
        match c {
            '(' | ')' | '\\' => text.extend(['\\', c]),
            '!'..='~' => text.push(c),
            _ => text.push('?'),
        }
    }
    text
}

/// A date as RFC 5322 §3.3 wants it.
pub(crate) fn date(at: OffsetDateTime) -> String {
    at.format(&Rfc2822).expect("RFC 2822 has a form for every date after 1900")
}

/// The "with" of a session (RFC 3848, RFC 6531 §4.3).
pub(crate) fn protocol(extended: bool, secured: bool, smtputf8: bool) -> &'static str {
    match (smtputf8, extended, secured) {
        (true, _, true) => "UTF8SMTPS",
        (true, _, false) => "UTF8SMTP",
        (false, true, true) => "ESMTPS",
        (false, true, false) => "ESMTP",
        // TLS cannot be started without EHLO; whatever HELO follows it is SMTP.
        (false, false, _) => "SMTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(client: &str, recipients: &[&str], tls: Option<&str>) -> String {
        line_of("client.example", client, recipients, tls)
    }

    fn line_of(from: &str, client: &str, recipients: &[&str], tls: Option<&str>) -> String {
        let recipients: Vec<_> = recipients.iter().map(|r| Recipient::new(r.parse().unwrap())).collect();
        Received {
            from: Some(from),
            client: client.parse().unwrap(),
            by: "mx.example.test",
            protocol: "ESMTP",
            tls,
            id: "0198f2a4-7c3e-7d10-9a53-0c2f7d1be001".parse().unwrap(),
            recipients: &recipients,
            at: OffsetDateTime::from_unix_timestamp(1_795_466_400).unwrap(),
        }
        .line()
    }

    #[test]
    fn it_names_a_single_recipient() {
        assert_eq!(
            line("192.0.2.1", &["alice@example.test"], None),
            "Received: from client.example ([192.0.2.1])\r\n\
             \tby mx.example.test with ESMTP id 0198f2a4-7c3e-7d10-9a53-0c2f7d1be001\r\n\
             \tfor <alice@example.test>;\r\n\
             \tMon, 23 Nov 2026 20:40:00 +0000\r\n"
        );
    }

    #[test]
    fn a_client_that_is_called_what_no_host_is_stands_in_a_comment() {
        for (name, wanted) in [
            ("[192.0.2.7]", "from [192.0.2.7] ([192.0.2.1])\r\n"),
            ("my!pc", "from [192.0.2.1] (my!pc)\r\n"),
            ("x)(y\\", "from [192.0.2.1] (x\\)\\(y\\\\)\r\n"),
            ("a\r\nX: b", "from [192.0.2.1] (a??X:?b)\r\n"),
        ] {
            let line = line_of(name, "192.0.2.1", &[], None);
            assert!(line.starts_with(&format!("Received: {wanted}\tby ")), "{line}");
        }
    }

    #[test]
    fn it_names_none_of_several() {
        let got = line("2001:db8::1", &["a@b.example", "c@d.example"], Some("TLSv1_3 X"));
        assert_eq!(
            got,
            "Received: from client.example ([IPv6:2001:db8::1])\r\n\
             \tby mx.example.test with ESMTP id 0198f2a4-7c3e-7d10-9a53-0c2f7d1be001\r\n\
             \t(TLSv1_3 X);\r\n\
             \tMon, 23 Nov 2026 20:40:00 +0000\r\n"
        );
        assert!(line("::ffff:192.0.2.1", &[], None).contains("([192.0.2.1])"));
    }
}
