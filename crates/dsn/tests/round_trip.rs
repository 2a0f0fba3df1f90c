//! Any report goes to bytes and back, and no bytes break the reader.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use posthorn_dsn::{Action, RecipientReport, Report, Returned};
use posthorn_mail::{Address, Body, EnhancedStatus, Status, Words};
use proptest::prelude::*;
use time::OffsetDateTime;

fn address() -> impl Strategy<Value = Address> {
    "[ -~äß用]{1,20}".prop_map(|local| Address::new(&local, "example.net".parse().unwrap()).unwrap())
}

fn date() -> impl Strategy<Value = OffsetDateTime> {
    (0..4_000_000_000_i64).prop_map(|at| OffsetDateTime::from_unix_timestamp(at).unwrap())
}

fn recipient() -> impl Strategy<Value = RecipientReport> {
    let action = prop::sample::select(vec![
        Action::Failed,
        Action::Delayed,
        Action::Delivered,
        Action::Relayed,
        Action::Expanded,
    ]);
    let said = (400..600_u16, "[!-~]{1,9}( {1,3}[!-~]{1,2000}){0,4}").prop_map(|(code, text)| {
        let enhanced = EnhancedStatus::new((code / 100) as u8, 1, 2);
        Status::received(code, Some(enhanced), &text).unwrap()
    });
    (address(), action, prop::option::of(said), prop::option::of("[a-z]{1,60}"), prop::option::of(date()))
        .prop_map(|(to, action, diagnostic, host, last_attempt)| {
            let words = if host.is_some() { Words::Said } else { Words::Own };
            let diagnostic = diagnostic.map(|status| status.in_words(words));
            RecipientReport {
                remote_mta: host.filter(|_| diagnostic.is_some()),
                diagnostic,
                last_attempt,
                ..RecipientReport::new(to, action, EnhancedStatus::new(5, 1, 1))
            }
        })
}

fn returned() -> impl Strategy<Value = Returned> {
    prop_oneof![
        Just(Returned::None),
        "(X-[A-Za-z]{1,9}: [ -~]{0,80}[!-~]\r\n){1,5}"
            .prop_map(|headers| Returned::Headers(headers.into_bytes())),
        "(X-[A-Za-z]{1,9}: [ -~]{0,80}[!-~]\r\n){1,5}\r\n([ -~äß-]{0,90}\r\n){0,9}[a-z]{0,3}"
            .prop_map(|content| Returned::Full(content.into_bytes())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_report_is_read_back(
        recipients in prop::collection::vec(recipient(), 1..5),
        returned in returned(),
        to in address(),
        date in date(),
        arrival_date in prop::option::of(date()),
        envelope_id in prop::option::of("[!-~]{1,100}"),
    ) {
        let report = Report {
            from: "mailer-daemon@example.test".parse().unwrap(),
            to,
            message_id: "id@example.test".to_owned(),
            date,
            reporting_mta: "example.test".parse().unwrap(),
            arrival_date,
            envelope_id,
            about: None,
            recipients,
            returned,
        };
        let bytes = report.to_bytes();
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            prop_assert!(line.len() <= 1000 && line.ends_with(b"\r\n"));
        }
        prop_assert_eq!(bytes.is_ascii(), report.body() == Body::SevenBit);
        let mut read = Report::parse(&bytes);
        if let Ok(read) = &mut read {
            // A word too long for a line is cut, and reads as two.
            for (read, told) in read.recipients.iter_mut().zip(&report.recipients) {
                if told.diagnostic.as_ref().is_some_and(|said| said.text().split(' ').any(|w| w.len() > 800)) {
                    read.diagnostic.clone_from(&told.diagnostic);
                }
            }
        }
        prop_assert_eq!(read, Ok(report));
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Report::parse(&bytes);
        let mut wrapped = b"From: a@b\r\nContent-Type: multipart/report; boundary=x\r\n\r\n--x\r\nContent-Type: \
                            message/delivery-status\r\n\r\n".to_vec();
        wrapped.extend(bytes);
        let _ = Report::parse(&wrapped);
    }
}
