//! What is composed, read by another's parser.

use mail_parser::{MessageParser, MimeHeaders as _};
use posthorn_api::submission::v1::{Attachment, Header, Mailbox, StructuredMessage};
use proptest::prelude::*;

use super::compose;

fn mailbox(name: &str, address: &str) -> Mailbox {
    Mailbox { name: name.into(), address: address.into() }
}

fn simple() -> StructuredMessage {
    StructuredMessage {
        from: Some(mailbox("Bob", "bob@example.net")),
        to: vec![mailbox("", "alice@example.test")],
        subject: "Hello".into(),
        text: "Hi\nthere\n".into(),
        ..Default::default()
    }
}

#[test]
fn a_simple_message_is_a_simple_text() {
    assert_eq!(
        String::from_utf8(compose(&simple()).unwrap()).unwrap(),
        "From: Bob <bob@example.net>\r\nTo: alice@example.test\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=\"utf-8\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\nHi\r\nthere\r\n"
    );
}

#[test]
fn all_parts_come_back() {
    let message = StructuredMessage {
        from: Some(mailbox("Jürgen \"J\" Müller", "juergen@example.net")),
        to: vec![mailbox("Doe, Jane", "jane@example.test"), mailbox("用户", "x@example.org")],
        cc: (0..30).map(|at| mailbox("A somewhat long name", &format!("cc{at}@example.org"))).collect(),
        bcc: vec![mailbox("", "secret@example.org")],
        subject: "Grüße aus ".repeat(20),
        text: "Line\r\nwith ümlauts\rand all\n".into(),
        html: "<p>Hi <img src=\"cid:logo\"></p>".into(),
        attachments: vec![
            Attachment {
                filename: "bericht über alles.txt".into(),
                content_type: "text/plain; charset=utf-8".into(),
                content: b"bare\rCR, bare\nLF, NUL\0, and no end"[..].into(),
                content_id: String::new(),
            },
            Attachment {
                filename: "logo.png".into(),
                content_type: "image/png".into(),
                content: vec![0xff; 1000].into(),
                content_id: "logo".into(),
            },
        ],
        headers: vec![Header { name: "X-Tag".into(), value: "one two ".repeat(40) }],
        ..Default::default()
    };
    let bytes = compose(&message).unwrap();
    assert!(bytes.is_ascii() && !bytes.contains(&0));
    assert!(!bytes.windows(6).any(|window| window == b"secret"), "Bcc is no one's business");
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.split("\r\n").all(|line| line.len() <= 78 && !line.contains(['\r', '\n'])), "{text}");
    let parsed = MessageParser::new().parse(&bytes).unwrap();
    assert_eq!(parsed.subject(), Some(message.subject.trim()));
    let from = parsed.from().unwrap().first().unwrap();
    assert_eq!((from.name(), from.address()), (Some("Jürgen \"J\" Müller"), Some("juergen@example.net")));
    let to: Vec<_> = parsed.to().unwrap().iter().map(|a| a.name().unwrap().to_owned()).collect();
    assert_eq!(to, ["Doe, Jane", "用户"]);
    assert_eq!(parsed.cc().unwrap().iter().count(), 30);
    assert_eq!(parsed.body_text(0).unwrap().replace("\r\n", "\n"), "Line\nwith ümlauts\nand all\n");
    assert_eq!(parsed.body_html(0).unwrap().trim_end(), message.html);
    assert_eq!(parsed.header_raw("X-Tag").unwrap().replace("\r\n", "").trim(), "one two ".repeat(40).trim());
    let report = parsed.attachments().find(|part| part.attachment_name() == Some("bericht über alles.txt"));
    assert_eq!(report.unwrap().contents(), message.attachments[0].content);
    let logo = parsed.parts.iter().find(|part| part.content_id() == Some("logo")).unwrap();
    assert_eq!(logo.contents(), message.attachments[1].content);
}

/// RFC 5322 §2.1.1.
#[test]
fn no_line_is_longer_than_998_octets() {
    let address = |domain: &str| format!("{}@{}.example", "l".repeat(255), [domain; 30].join("."));
    let message = StructuredMessage {
        from: Some(mailbox(&"\"".repeat(255), &address("sixoct"))),
        to: vec![mailbox(&"n".repeat(255), &address("others")), mailbox(&"ü".repeat(255), "a@b.example")],
        subject: ["x".repeat(5_000), "y".repeat(2_000)].join(" "),
        text: "t".repeat(5_000),
        html: "h".repeat(5_000),
        headers: vec![Header { name: "X-Tag".into(), value: vec!["v".repeat(900); 3].join(" ") }],
        ..simple()
    };
    let bytes = compose(&message).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.split("\r\n").all(|line| line.len() <= 998), "{text}");
    let parsed = MessageParser::new().parse(&bytes).unwrap();
    assert_eq!(parsed.subject(), Some(message.subject.as_str()));
    let from = parsed.from().unwrap().first().unwrap();
    assert_eq!(
        (from.name(), from.address()),
        (Some("\"".repeat(255).as_str()), Some(address("sixoct").as_str()))
    );
    let to: Vec<_> = parsed.to().unwrap().iter().map(|to| to.name().unwrap().chars().count()).collect();
    assert_eq!(to, [255, 255]);
}

#[test]
fn what_could_end_a_header_is_refused_by_name() {
    let evil = "x\r\nBcc: victim@example.org";
    let header = |name: &str, value: &str| vec![Header { name: name.into(), value: value.into() }];
    let attachment = |filename: &str, content_type: &str, content_id: &str| {
        vec![Attachment {
            filename: filename.into(),
            content_type: content_type.into(),
            content_id: content_id.into(),
            content: Default::default(),
        }]
    };
    for (message, field) in [
        (StructuredMessage { subject: evil.into(), ..simple() }, "message.subject"),
        (StructuredMessage { subject: "a\nb".into(), ..simple() }, "message.subject"),
        (StructuredMessage { from: Some(mailbox(evil, "a@b")), ..simple() }, "message.from.name"),
        (StructuredMessage { from: Some(mailbox("", "a@b\r\nX: y")), ..simple() }, "message.from.address"),
        (StructuredMessage { from: None, ..simple() }, "message.from"),
        (StructuredMessage { to: vec![mailbox("", "nobody")], ..simple() }, "message.to[0].address"),
        (StructuredMessage { headers: header("X-A", evil), ..simple() }, "message.headers[0].value"),
        (StructuredMessage { headers: header("X-A: b\r\nBcc", "x"), ..simple() }, "message.headers[0].name"),
        (
            StructuredMessage { headers: header("X-A", &"x".repeat(1000)), ..simple() },
            "message.headers[0].value",
        ),
        (StructuredMessage { headers: header("", "x"), ..simple() }, "message.headers[0].name"),
        (StructuredMessage { headers: header("BCC", "x"), ..simple() }, "message.headers[0].name"),
        (StructuredMessage { headers: header("Content-Type", "x"), ..simple() }, "message.headers[0].name"),
        (
            StructuredMessage {
                headers: [header("Message-ID", "<a@b>"), header("message-id", "<c@d>")].concat(),
                ..simple()
            },
            "message.headers[1].name",
        ),
        (
            StructuredMessage { attachments: attachment(evil, "", ""), ..simple() },
            "message.attachments[0].filename",
        ),
        (
            StructuredMessage { attachments: attachment("a", evil, ""), ..simple() },
            "message.attachments[0].content_type",
        ),
        (
            StructuredMessage { attachments: attachment("a", "multipart/mixed", ""), ..simple() },
            "message.attachments[0].content_type",
        ),
        (
            StructuredMessage { attachments: attachment("a", "a/b", "x>\r\nX: y"), ..simple() },
            "message.attachments[0].content_id",
        ),
        (StructuredMessage { text: "a\0b".into(), ..simple() }, "message.text"),
        (StructuredMessage { text: String::new(), ..simple() }, "message.text"),
    ] {
        let refused = compose(&message).unwrap_err();
        assert!(refused.message().starts_with(&format!("{field}: ")), "{field}, not {}", refused.message());
    }
}

proptest! {
    #[test]
    fn any_text_comes_back_and_adds_no_header(
        subject in any::<String>(),
        name in any::<String>(),
        filename in any::<String>(),
        text in any::<String>(),
    ) {
        let message = StructuredMessage {
            from: Some(mailbox(&name, "bob@example.net")),
            subject,
            text: text + "end",
            attachments: vec![Attachment { filename, ..Default::default() }],
            ..simple()
        };
        let Ok(bytes) = compose(&message) else { return Ok(()) };
        prop_assert!(bytes.is_ascii() && !bytes.contains(&0));
        let text = String::from_utf8(bytes.clone()).unwrap();
        prop_assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])), "{}", text);
        let parsed = MessageParser::new().parse(&bytes).unwrap();
        let names: Vec<_> = parsed.headers().iter().map(|header| header.name().to_owned()).collect();
        let subject: &[&str] = if message.subject.is_empty() { &[] } else { &["Subject"] };
        prop_assert_eq!(names, [&["From", "To"], subject, &["MIME-Version", "Content-Type"]].concat());
        prop_assert_eq!(parsed.attachment_count(), 1);
    }
}
