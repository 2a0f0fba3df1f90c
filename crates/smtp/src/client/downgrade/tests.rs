use mail_parser::{MessageParser, MimeHeaders as _, PartType};
use proptest::prelude::*;

use super::*;

fn seven_bit(content: &str) -> Result<String, Unconvertible> {
    downgrade(content.as_bytes(), Body::SevenBit).map(|out| String::from_utf8(out).unwrap())
}

#[test]
fn a_text_is_quoted() {
    assert_eq!(
        seven_bit("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nSubject: x\r\n\r\nein schöner Tag\r\n").unwrap(),
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nSubject: x\r\n\r\nein sch=C3=B6ner Tag\r\n"
    );
}

#[test]
fn a_text_without_mime_is_given_some() {
    // RFC 1428 §3
    assert_eq!(
        seven_bit("Subject: x\r\n\r\nein schöner Tag\r\n").unwrap(),
        "Subject: x\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n\r\nein sch=C3=B6ner Tag\r\n"
    );
}

#[test]
fn what_is_mostly_8_bit_goes_as_base64() {
    let converted =
        seven_bit("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nпривет\r\n").unwrap();
    assert!(
        converted.ends_with("Content-Transfer-Encoding: base64\r\n\r\n0L/RgNC40LLQtdGCDQo="),
        "{converted}"
    );
}

const MULTIPART: &str = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=b\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
    pré\r\n--=b\r\nContent-Type: text/plain\r\n\r\nplain = stays\r\n--=b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
    a line of some length with one é\r\n--=b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: inner\r\n\r\na line of some length with one ü\r\n--=b--\r\n";

#[test]
fn only_the_parts_that_need_it_are_changed() {
    let wanted = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=b\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
        pr??\r\n--=b\r\nContent-Type: text/plain\r\n\r\nplain = stays\r\n--=b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
        a line of some length with one =C3=A9\r\n--=b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: inner\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n\r\na line of some length with one =C3=BC\r\n--=b--\r\n";
    assert_eq!(seven_bit(MULTIPART).unwrap(), wanted);
}

#[test]
fn what_fits_stays_as_it_is() {
    let plain = "Subject: x\r\nContent-Transfer-Encoding: 8bit\r\n\r\nascii = all\r\n";
    assert_eq!(seven_bit(plain).unwrap(), plain);
    assert_eq!(downgrade(MULTIPART.as_bytes(), Body::EightBitMime).unwrap(), MULTIPART.as_bytes());
}

#[test]
fn binary_content_goes_as_base64() {
    let content = b"MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x89PNG\r\n\x1a\n\0\xff";
    for to in [Body::SevenBit, Body::EightBitMime] {
        assert_eq!(
            downgrade(content, to).unwrap(),
            b"MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgoA/w=="
        );
    }
}

#[test]
fn what_must_not_be_changed_is_refused() {
    for (header, why) in [
        ("multipart/signed; boundary=b", Unconvertible::Signed),
        ("multipart/encrypted; boundary=b", Unconvertible::Signed),
        ("multipart/mixed", Unconvertible::Malformed),
        ("multipart/mixed; boundary=other", Unconvertible::Malformed),
        ("message/partial; id=1", Unconvertible::Encoding),
        ("text/plain\r\nContent-Transfer-Encoding: quoted-printable", Unconvertible::Encoding),
    ] {
        let content = format!("MIME-Version: 1.0\r\nContent-Type: {header}\r\n\r\n--b\r\n\r\né\r\n--b--\r\n");
        assert_eq!(seven_bit(&content), Err(why), "{header}");
    }
    assert_eq!(seven_bit("Subject: Größe\r\n\r\nx\r\n"), Err(Unconvertible::Header));
    // Signed deep within: as little.
    let nested = "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/signed; boundary=i\r\n\r\n--i\r\n\r\né\r\n--i--\r\n--o--\r\n";
    assert_eq!(seven_bit(nested), Err(Unconvertible::Signed));
    // What is signed and needs no change may go along with what does.
    let beside = nested.replace('é', "e") + "é\r\n";
    assert!(seven_bit(&beside).unwrap().contains("\r\n--i\r\n\r\ne\r\n--i--"));
}

#[test]
fn depth_is_bounded() {
    let mut content = String::new();
    for level in 0..100 {
        content += &format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n");
    }
    assert_eq!(seven_bit(&(content + "\r\né\r\n")), Err(Unconvertible::Malformed));
}

#[test]
fn binary_is_told_from_lines() {
    for (content, wanted) in [
        (&b"a\r\nb\r\n"[..], false),
        (b"a", false),
        (b"\xff\r\n", false),
        (b"a\nb\r\n", true),
        (b"a\rb\r\n", true),
        (b"a\r", true),
        (b"a\0", true),
        (&[b'a'; 998], false),
        (&[b'a'; 999], true),
    ] {
        assert_eq!(is_binary(content), wanted, "{content:?}");
    }
}

#[test]
fn what_content_needs_is_seen() {
    for (content, declared, body, utf8_headers) in [
        ("Subject: x\r\n\r\na\r\n", Body::EightBitMime, Body::SevenBit, false),
        ("Subject: x\r\n\r\né\r\n", Body::SevenBit, Body::EightBitMime, false),
        ("Subject: é\r\n\r\na\r\n", Body::SevenBit, Body::EightBitMime, true),
        ("Subject: x\r\n\r\na\r\n", Body::BinaryMime, Body::SevenBit, false),
        ("Subject: x\r\n\r\na\0\r\n", Body::BinaryMime, Body::BinaryMime, false),
    ] {
        assert_eq!(needs(content.as_bytes(), declared), Needs { body, utf8_headers }, "{content}");
    }
}

/// Type and decoded bytes of each leaf.
fn leaves(content: &[u8]) -> Vec<(String, Vec<u8>)> {
    let message = MessageParser::default().parse(content).unwrap();
    let mut found = Vec::new();
    for part in &message.parts {
        match &part.body {
            PartType::Message(inner) => found.extend(leaves(inner.raw_message())),
            PartType::Multipart(_) => {}
            _ => {
                let kind = part.content_type().map_or("text", |kind| kind.ctype());
                found.push((kind.to_owned(), part.contents().to_vec()));
            }
        }
    }
    found
}

/// An entity: header lines and body, nested up to three deep.
fn entity(depth: u32) -> BoxedStrategy<String> {
    let leaf = (
        "(text/plain; charset=utf-8|text/html; charset=utf-8|application/x-y)",
        "([a-zé=. ]{0,90}\r\n){0,6}",
    )
        .prop_map(|(kind, body)| {
            format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{body}")
        });
    if depth == 0 {
        return leaf.boxed();
    }
    let parts = prop::collection::vec(entity(depth - 1), 1..4).prop_map(move |parts| {
        let parts: String = parts.iter().map(|part| format!("--b{depth}\r\n{part}\r\n")).collect();
        format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n{parts}--b{depth}--\r\n")
    });
    prop_oneof![leaf, parts].boxed()
}

proptest! {
    #[test]
    fn a_reader_finds_the_same_in_it(entity in entity(3)) {
        let content = format!("Subject: x\r\nMIME-Version: 1.0\r\n{entity}");
        let converted = downgrade(content.as_bytes(), Body::SevenBit).unwrap();
        prop_assert!(converted.is_ascii() && !is_binary(&converted));
        prop_assert_eq!(leaves(&converted), leaves(content.as_bytes()));
    }

    #[test]
    fn no_bytes_make_it_panic(content in prop::collection::vec(any::<u8>(), 0..500)) {
        if let Ok(converted) = downgrade(&content, Body::SevenBit) {
            prop_assert!(converted.is_ascii());
        }
    }
}
