//! A report's bytes: headers and three parts.
//!
//! By hand: the form is fixed, and the second and third part allow none of the encodings that a builder may choose.

use posthorn_mail::{Address, Body};

use crate::encode::{header, quoted_printable, unstructured};
use crate::{Report, fields, words};

/// The report as a message (RFC 5322), a `multipart/report` (RFC 6522).
pub(crate) fn report(report: &Report) -> Vec<u8> {
    let (subject, original_id) = report.returned.subject_and_id();
    let text = text_part(&words::text(report, subject.as_deref()));
    let status = fields::write(report);
    let returned = report.returned.part();
    let bodies = [text.as_bytes(), status.as_bytes(), returned.as_ref().map_or(&[][..], |part| &part.body)];
    let boundary = boundary(&report.message_id, &bodies);

    let mut head = String::new();
    header(&mut head, "Date", &fields::date(report.date));
    header(&mut head, "From", &format!("Mail Delivery System {}", bracketed(&report.from)));
    header(&mut head, "To", &bracketed(&report.to));
    header(&mut head, "Subject", &unstructured(&words::subject(report, subject.as_deref())));
    header(&mut head, "Message-ID", &format!("<{}>", report.message_id));
    if let Some(id) = original_id {
        header(&mut head, "In-Reply-To", &format!("<{id}>"));
        header(&mut head, "References", &format!("<{id}>"));
    }
    // RFC 3834 §5: nothing that answers by itself answers this.
    header(&mut head, "Auto-Submitted", "auto-replied");
    header(&mut head, "MIME-Version", "1.0");
    head.push_str("Content-Type: multipart/report; report-type=delivery-status;\r\n");
    head.push_str(&format!(" boundary=\"{boundary}\"\r\n"));
    if report.body() == Body::EightBitMime {
        header(&mut head, "Content-Transfer-Encoding", "8bit");
    }

    let mut out = head.into_bytes();
    out.reserve(bodies.iter().map(|body| body.len() + 256).sum());
    let mut part = |headers: &str, body: &[u8]| {
        out.extend_from_slice(format!("\r\n--{boundary}\r\n{headers}").as_bytes());
        out.extend_from_slice(body);
    };
    part("", text.as_bytes());
    part(
        "Content-Description: Delivery report\r\nContent-Type: message/delivery-status\r\n\r\n",
        status.as_bytes(),
    );
    if let Some(returned) = &returned {
        part(&format!("Content-Description: The message\r\n{}\r\n", returned.header), &returned.body);
    }
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    out
}

/// The first part with its headers: 7-bit where it can be.
fn text_part(text: &str) -> String {
    let lines = text.replace('\n', "\r\n");
    let (charset, encoding, body) = if text.is_ascii() && text.lines().all(|line| line.len() <= 998) {
        ("us-ascii", "7bit", lines)
    } else {
        ("utf-8", "quoted-printable", quoted_printable(lines.as_bytes()))
    };
    format!(
        "Content-Description: Notification\r\nContent-Type: text/plain; charset={charset}\r\n\
         Content-Transfer-Encoding: {encoding}\r\n\r\n{body}"
    )
}

/// `<address>`; a UTF-8 address, which no 7-bit header can hold, as the name of an empty group (RFC 6857 §3.1.8).
fn bracketed(address: &Address) -> String {
    let address = address.to_string();
    if address.is_ascii() { format!("<{address}>") } else { format!("{} :;", unstructured(&address)) }
}

/// A boundary that begins no line of any part (RFC 2046 §5.1.1): the id, and a number when someone foresaw it.
fn boundary(message_id: &str, bodies: &[&[u8]]) -> String {
    let stem: String = message_id.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    // "=_" stands in no quoted-printable and no base64.
    let mut boundary = format!("=_{stem}");
    let mut number = 0;
    while bodies.iter().any(|body| begins_a_line(&boundary, body)) {
        number += 1;
        boundary = format!("=_{number}_{stem}");
    }
    boundary
}

fn begins_a_line(boundary: &str, body: &[u8]) -> bool {
    body.split(|&b| b == b'\n')
        .filter_map(|line| line.strip_prefix(b"--"))
        .any(|line| line.starts_with(boundary.as_bytes()))
}
