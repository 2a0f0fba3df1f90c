//! Commands as they go over the wire.

use std::fmt::Write as _;

use posthorn_mail::{Body, Envelope, Notify, Recipient, Ret};

use super::capabilities::{Capabilities, Size};
use crate::xtext;

/// `MAIL FROM:<...>` with the parameters that the server offers and the message needs.
pub(super) fn mail(envelope: &Envelope, size: u64, utf8: bool, offered: &Capabilities) -> String {
    let mut line = format!("MAIL FROM:<{}>", envelope.sender);
    if offered.size != Size::Unsaid {
        push(&mut line, format_args!(" SIZE={size}"));
    }
    match envelope.body {
        Body::SevenBit => {}
        Body::EightBitMime => line.push_str(" BODY=8BITMIME"),
        Body::BinaryMime => line.push_str(" BODY=BINARYMIME"),
    }
    if utf8 {
        line.push_str(" SMTPUTF8");
    }
    if offered.dsn {
        match envelope.ret {
            None => {}
            Some(Ret::Full) => line.push_str(" RET=FULL"),
            Some(Ret::Headers) => line.push_str(" RET=HDRS"),
        }
        if let Some(id) = &envelope.envelope_id {
            push(&mut line, format_args!(" ENVID={}", xtext::encode(id)));
        }
    }
    line.push_str("\r\n");
    line
}

/// `RCPT TO:<...>`, with what the sender wants to hear of it where the server knows DSN (RFC 3461 §5.2.1).
pub(super) fn rcpt(recipient: &Recipient, dsn: bool) -> String {
    let mut line = format!("RCPT TO:<{}>", recipient.address);
    if dsn {
        if let Some(notify) = recipient.notify {
            push(&mut line, format_args!(" NOTIFY={}", occasions(notify)));
        }
        if let Some(original) = &recipient.original_recipient {
            push(&mut line, format_args!(" ORCPT={}", xtext::encode(original)));
        }
    }
    line.push_str("\r\n");
    line
}

fn occasions(notify: Notify) -> String {
    let named: Vec<&str> =
        [("SUCCESS", notify.success()), ("FAILURE", notify.failure()), ("DELAY", notify.delay())]
            .iter()
            .filter_map(|(name, wanted)| wanted.then_some(*name))
            .collect();
    if named.is_empty() { "NEVER".to_owned() } else { named.join(",") }
}

fn push(line: &mut String, arguments: std::fmt::Arguments<'_>) {
    line.write_fmt(arguments).expect("a String takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use posthorn_mail::ReversePath;

    use super::*;

    #[test]
    fn parameters_are_given_where_they_are_offered() {
        let mut envelope = Envelope::new("a@example.net".parse().unwrap(), vec![]);
        envelope.ret = Some(Ret::Headers);
        envelope.envelope_id = Some("Q=1".into());
        envelope.body = Body::EightBitMime;
        let all = Capabilities { size: Size::Unlimited, dsn: true, ..Capabilities::default() };
        assert_eq!(
            mail(&envelope, 7, true, &all),
            "MAIL FROM:<a@example.net> SIZE=7 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=Q+3D1\r\n"
        );
        let bare = Envelope::new(ReversePath::Null, vec![]);
        assert_eq!(mail(&bare, 7, false, &Capabilities::default()), "MAIL FROM:<>\r\n");
    }

    #[test]
    fn a_recipient_carries_its_wishes() {
        let mut recipient = Recipient::new("b@example.org".parse().unwrap());
        assert_eq!(rcpt(&recipient, true), "RCPT TO:<b@example.org>\r\n");
        recipient.notify = Some(Notify::On { success: true, failure: false, delay: true });
        recipient.original_recipient = Some("rfc822;B+x@example.org".into());
        assert_eq!(
            rcpt(&recipient, true),
            "RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Bx@example.org\r\n"
        );
        assert_eq!(rcpt(&recipient, false), "RCPT TO:<b@example.org>\r\n");
        recipient.notify = Some(Notify::Never);
        recipient.original_recipient = None;
        assert_eq!(rcpt(&recipient, true), "RCPT TO:<b@example.org> NOTIFY=NEVER\r\n");
    }
}
