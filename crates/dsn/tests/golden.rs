//! Notices as they are sent, kept as files, and read back to what they said.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;

use posthorn_dsn::{Action, RecipientReport, Report, Returned};
use posthorn_mail::{Address, Body, Status, Words};
use time::OffsetDateTime;
use time::macros::datetime;

const HEADERS: &str = "From: Alice <alice@example.test>\r\nTo: Bob <bob@example.net>\r\nSubject: Lunch on \
                       Tuesday?\r\nMessage-ID: <lunch-1@example.test>\r\nDate: Mon, 23 Nov 2026 09:00:00 \
                       +0100\r\n";

const ACCEPTED: OffsetDateTime = datetime!(2026-11-23 08:00:01 UTC);

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn status(text: &str, words: Words) -> Option<Status> {
    let (code, rest) = text.split_once(' ').unwrap();
    let (enhanced, text) = rest.split_once(' ').unwrap();
    let status = Status::received(code.parse().unwrap(), enhanced.parse().ok(), text).unwrap();
    Some(status.in_words(words))
}

fn message(body: &str) -> Vec<u8> {
    format!("{HEADERS}\r\n{body}").into_bytes()
}

/// One recipient, with the words of a server or of Posthorn.
fn recipient(to: &str, action: Action, said: &str, host: Option<&str>) -> RecipientReport {
    let diagnostic = status(said, if host.is_some() { Words::Said } else { Words::Own });
    RecipientReport {
        original_recipient: Some(format!("rfc822;{to}")),
        status: diagnostic.as_ref().unwrap().enhanced(),
        diagnostic,
        remote_mta: host.map(str::to_owned),
        last_attempt: Some(datetime!(2026-11-23 12:30:00 UTC)),
        ..RecipientReport::new(address(to), action, "5.0.0".parse().unwrap())
    }
}

fn report(recipients: Vec<RecipientReport>, returned: Returned) -> Report {
    Report {
        from: address("mailer-daemon@mx.example.test"),
        to: address("alice@example.test"),
        message_id: "019ab1c2-0000-7000-8000-000000000001@mx.example.test".to_owned(),
        date: datetime!(2026-11-23 12:30:02 UTC),
        reporting_mta: "mx.example.test".parse().unwrap(),
        arrival_date: Some(ACCEPTED),
        envelope_id: None,
        about: Some("019ab1c1-7c3e-7d10-9a53-0c2f7d1be001".parse().unwrap()),
        recipients,
        returned,
    }
}

/// Compares with the file, and reads the file back to the same report.
fn check(name: &str, report: &Report) {
    let bytes = report.to_bytes();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let golden = std::fs::read(&file).unwrap_or_default();
    if golden != bytes {
        let seen = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&seen, &bytes).unwrap();
        panic!("{name} is not as written; if it is meant to be: cp {} {}", seen.display(), file.display());
    }
    assert_eq!(Report::parse(&golden).as_ref(), Ok(report), "{name} read back");
    check_lines(&bytes, report.body());
}

/// What must hold of every notice (RFC 5321 §4.5.3.1.6).
fn check_lines(bytes: &[u8], body: Body) {
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r\n").expect("every line ends in CRLF");
        assert!(line.len() <= 998 && !line.contains(&b'\r') && !line.contains(&0));
    }
    assert_eq!(bytes.is_ascii(), body == Body::SevenBit);
}

#[test]
fn a_failure_brings_the_message_back() {
    let said =
        "550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown in local recipient table";
    let bob = recipient("bob@example.net", Action::Failed, said, Some("mx1.example.net"));
    let mut report = report(vec![bob], Returned::Full(message("Shall we?\r\n\r\n.\r\nAlice\r\n")));
    report.envelope_id = Some("QQ314159".to_owned());
    check("failed.eml", &report);
}

#[test]
fn a_delay_says_until_when_it_is_tried() {
    let said = "451 4.7.1 Greylisted, please come back in 5 minutes";
    let mut bob = recipient("bob@example.net", Action::Delayed, said, Some("mx1.example.net"));
    bob.will_retry_until = Some(datetime!(2026-11-28 08:00:01 UTC));
    check("delayed.eml", &report(vec![bob], Returned::Headers(HEADERS.into())));
}

#[test]
fn a_delay_without_an_answer_has_posthorns_words() {
    let said = "451 4.4.1 connecting to mx1.example.net (192.0.2.1:25): timed out";
    let mut bob = recipient("bob@example.net", Action::Delayed, said, None);
    bob.will_retry_until = Some(datetime!(2026-11-28 08:00:01 UTC));
    check("delayed-unreachable.eml", &report(vec![bob], Returned::Headers(HEADERS.into())));
}

#[test]
fn several_recipients_share_a_notice() {
    let mut carol = recipient(
        "carol@mailbox.example.org",
        Action::Failed,
        "552 5.2.2 The mailbox is over its quota of 1 GB",
        None,
    );
    carol.original_recipient = Some("rfc822;sales@example.org".to_owned());
    let expired = "450 4.2.0 try later";
    let mut dave = recipient("dave@example.net", Action::Failed, expired, Some("[192.0.2.7]"));
    dave.status = "5.4.7".parse().unwrap();
    let list = recipient("team@example.test", Action::Expanded, "250 2.1.5 expanded to 3 members", None);
    check("several.eml", &report(vec![carol, dave, list], Returned::None));
}

#[test]
fn a_success_that_was_asked_for_is_told() {
    let bob = recipient("bob@example.test", Action::Delivered, "250 2.0.0 delivered", None);
    let carol = recipient(
        "carol@example.net",
        Action::Relayed,
        "250 2.0.0 Ok: queued as 4F1",
        Some("mx1.example.net"),
    );
    check("delivered.eml", &report(vec![bob, carol], Returned::Headers(HEADERS.into())));
}

#[test]
fn utf8_addresses_stand_in_ascii() {
    let mut juergen = recipient(
        "jürgen@bücher.example",
        Action::Failed,
        "550 5.1.1 no such user",
        Some("mx.xn--bcher-kva.example"),
    );
    juergen.original_recipient = Some("utf-8;jürgen+buch@bücher.example".to_owned());
    let headers = HEADERS.replace("Lunch on Tuesday?", "Grüße aus Köln");
    let mut report = report(vec![juergen], Returned::Headers(headers.into_bytes()));
    report.to = address("алиса@example.test");
    check("utf8.eml", &report);
}

#[test]
fn an_8_bit_message_comes_back_as_it_is() {
    let bob =
        recipient("bob@example.net", Action::Failed, "554 5.7.1 refused by policy", Some("mx1.example.net"));
    check("8bit.eml", &report(vec![bob], Returned::Full(message("Grüße\r\n"))));
}

#[test]
fn a_message_with_utf8_headers_comes_back_as_it_is() {
    let bob =
        recipient("bob@example.net", Action::Failed, "554 5.7.1 refused by policy", Some("mx1.example.net"));
    let headers = HEADERS.replace("Lunch on Tuesday?", "Grüße aus Köln");
    let content = format!("{headers}\r\nGrüße\r\n");
    check("8bit-headers.eml", &report(vec![bob], Returned::Full(content.into_bytes())));
}

#[test]
fn a_message_given_up_keeps_the_last_words() {
    let said = "451 4.7.1 Greylisted, please come back in 5 minutes";
    let bob = recipient("bob@example.net", Action::Failed, said, Some("mx1.example.net"));
    check("given-up.eml", &report(vec![bob], Returned::Headers(HEADERS.into())));
}

#[test]
fn an_operators_reason_stands_alone() {
    let bob = recipient("bob@example.net", Action::Failed, "554 5.0.0 No longer wanted", None);
    check("bounced.eml", &report(vec![bob], Returned::Headers(HEADERS.into())));
}

#[test]
fn a_nested_report_is_not_mistaken_for_this_one() {
    let bob = recipient("bob@example.net", Action::Failed, "550 5.1.1 unknown", Some("mx1.example.net"));
    let inner = report(vec![bob.clone()], Returned::Full(message("inner\r\n"))).to_bytes();
    let mut carol = bob;
    carol.final_recipient = address("carol@example.net");
    // The same id, so that the boundaries would be the same.
    let outer = report(vec![carol], Returned::Full(inner));
    check("nested.eml", &outer);
}

#[test]
fn what_no_server_carries_comes_back_as_headers() {
    let bob = recipient("bob@example.net", Action::Failed, "550 5.1.1 unknown", Some("mx1.example.net"));
    for body in ["x".repeat(2000), "a\0b\r\n".to_owned(), "bare\rcr\r\n".to_owned()] {
        let report = report(vec![bob.clone()], Returned::Full(message(&body)));
        let bytes = report.to_bytes();
        check_lines(&bytes, report.body());
        assert_eq!(Report::parse(&bytes).unwrap().returned, Returned::Headers(HEADERS.into()));
    }
}

#[test]
fn words_of_others_cannot_break_out() {
    let said = format!("550 5.7.1 ü\tno\u{7f} {} \u{202e}", "long".repeat(700));
    let bob = recipient("bob@example.net", Action::Failed, &said, Some("evil\r\nAction: delivered"));
    let headers = format!("Subject: a\r\n b {}\r\nX: \u{1}\r\n", "ü".repeat(3000));
    let report = report(vec![bob], Returned::Headers(headers.into_bytes()));
    let bytes = report.to_bytes();
    check_lines(&bytes, Body::SevenBit);
    let read = Report::parse(&bytes).unwrap();
    assert_eq!(read.recipients[0].action, Action::Failed);
    assert_eq!(read.recipients.len(), 1);
    assert_eq!(read.returned, report.returned);
}
