//! Wire messages to `posthorn-mail` values and back.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use posthorn_mail as mail;
use time::OffsetDateTime;
use tonic::Status;

use crate::error::invalid;
use crate::mail::v1 as wire;

/// Parses a text field; INVALID_ARGUMENT names it when it is wrong.
pub fn parse_field<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|e| invalid(field, e))
}

/// A text that stands on one line, and that Postgres can hold, which has none with a NUL; INVALID_ARGUMENT names it when
/// it does not.
pub fn one_line<'a>(field: &str, text: &'a str) -> Result<&'a str, Status> {
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "has a control character"));
    }
    Ok(text)
}

/// A value of an enum; INVALID_ARGUMENT names it when this version knows none such.
pub fn known<E: TryFrom<i32>>(field: &str, value: i32) -> Result<E, Status> {
    value.try_into().map_err(|_| invalid(field, format!("{value} is none of its values")))
}

/// An empty text on the wire stands for none.
pub fn optional_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Reads the 16 bytes of a message id.
pub fn message_id(field: &str, bytes: &[u8]) -> Result<mail::MessageId, Status> {
    bytes.try_into().map_err(|e| invalid(field, e))
}

/// The 16 bytes of a message id.
pub fn message_id_bytes(id: mail::MessageId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// A point in time for the wire.
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: at.nanosecond() as i32 }
}

/// A point in time from the wire; `None` when it is out of the calendar's range.
pub fn time_of(at: prost_types::Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok().filter(|n| *n < 1_000_000_000)?;
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()?.replace_nanosecond(nanos).ok()
}

/// A length of time for the wire; what does not fit is as long as can be.
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: length.subsec_nanos() as i32,
    }
}

/// A length of time from the wire; negative ones are none at all.
pub fn period(length: prost_types::Duration) -> Duration {
    Duration::try_from(length).unwrap_or_default()
}

impl From<mail::Status> for wire::Status {
    fn from(status: mail::Status) -> Self {
        Self {
            code: status.code().into(),
            enhanced: status.enhanced().to_string(),
            text: status.text().to_owned(),
            words: wire::Words::from(status.words()).into(),
        }
    }
}

impl TryFrom<wire::Status> for mail::Status {
    type Error = Status;

    fn try_from(status: wire::Status) -> Result<Self, Status> {
        let code = u16::try_from(status.code).map_err(|_| invalid("status.code", mail::StatusError::Code))?;
        let enhanced = match status.enhanced.as_str() {
            "" => None,
            text => Some(parse_field("status.enhanced", text)?),
        };
        let words = status.words().into();
        let received = Self::received(code, enhanced, &status.text).map_err(|e| invalid("status.code", e))?;
        Ok(received.in_words(words))
    }
}

impl From<mail::Words> for wire::Words {
    fn from(words: mail::Words) -> Self {
        match words {
            mail::Words::Own => Self::Unspecified,
            mail::Words::Said => Self::Said,
            mail::Words::SaidBare => Self::SaidBare,
        }
    }
}

impl From<wire::Words> for mail::Words {
    fn from(words: wire::Words) -> Self {
        match words {
            wire::Words::Unspecified => Self::Own,
            wire::Words::Said => Self::Said,
            wire::Words::SaidBare => Self::SaidBare,
        }
    }
}

impl From<mail::Body> for wire::Body {
    fn from(body: mail::Body) -> Self {
        match body {
            mail::Body::SevenBit => Self::SevenBit,
            mail::Body::EightBitMime => Self::EightBitMime,
            mail::Body::BinaryMime => Self::BinaryMime,
        }
    }
}

impl From<wire::Body> for mail::Body {
    fn from(body: wire::Body) -> Self {
        match body {
            wire::Body::Unspecified | wire::Body::SevenBit => Self::SevenBit,
            wire::Body::EightBitMime => Self::EightBitMime,
            wire::Body::BinaryMime => Self::BinaryMime,
        }
    }
}

impl From<Option<mail::Ret>> for wire::Ret {
    fn from(ret: Option<mail::Ret>) -> Self {
        match ret {
            None => Self::Unspecified,
            Some(mail::Ret::Full) => Self::Full,
            Some(mail::Ret::Headers) => Self::Headers,
        }
    }
}

impl From<wire::Ret> for Option<mail::Ret> {
    fn from(ret: wire::Ret) -> Self {
        match ret {
            wire::Ret::Unspecified => None,
            wire::Ret::Full => Some(mail::Ret::Full),
            wire::Ret::Headers => Some(mail::Ret::Headers),
        }
    }
}

impl From<mail::Notify> for wire::Notify {
    fn from(notify: mail::Notify) -> Self {
        Self {
            never: notify == mail::Notify::Never,
            success: notify.success(),
            failure: notify.failure(),
            delay: notify.delay(),
        }
    }
}

impl From<wire::Notify> for mail::Notify {
    /// Nothing asked for is nothing wanted.
    fn from(notify: wire::Notify) -> Self {
        match notify {
            wire::Notify { never: true, .. }
            | wire::Notify { success: false, failure: false, delay: false, .. } => Self::Never,
            wire::Notify { success, failure, delay, .. } => Self::On { success, failure, delay },
        }
    }
}

impl From<mail::Recipient> for wire::Recipient {
    fn from(recipient: mail::Recipient) -> Self {
        Self {
            address: recipient.address.to_string(),
            notify: recipient.notify.map(Into::into),
            original_recipient: recipient.original_recipient.unwrap_or_default(),
        }
    }
}

impl From<mail::Envelope> for wire::Envelope {
    fn from(envelope: mail::Envelope) -> Self {
        Self {
            sender: envelope.sender.to_string(),
            recipients: envelope.recipients.into_iter().map(Into::into).collect(),
            body: wire::Body::from(envelope.body).into(),
            smtputf8: envelope.smtputf8,
            ret: wire::Ret::from(envelope.ret).into(),
            envelope_id: envelope.envelope_id.unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::Envelope> for mail::Envelope {
    type Error = Status;

    fn try_from(envelope: wire::Envelope) -> Result<Self, Status> {
        let body: wire::Body = known("envelope.body", envelope.body)?;
        let ret: wire::Ret = known("envelope.ret", envelope.ret)?;
        let recipient = |(at, recipient): (usize, wire::Recipient)| {
            let field = |name: &str| format!("envelope.recipients[{at}].{name}");
            // RFC 3461 §4.1: NEVER stands alone.
            if let Some(wire::Notify { never: true, success, failure, delay }) = recipient.notify
                && (success || failure || delay)
            {
                return Err(invalid(field("notify"), "has never beside success, failure or delay"));
            }
            Ok(mail::Recipient {
                address: parse_field(&field("address"), &recipient.address)?,
                notify: recipient.notify.map(Into::into),
                original_recipient: optional_text(recipient.original_recipient),
            })
        };
        Ok(Self {
            sender: parse_field("envelope.sender", &envelope.sender)?,
            recipients: envelope
                .recipients
                .into_iter()
                .enumerate()
                .map(recipient)
                .collect::<Result<_, Status>>()?,
            body: body.into(),
            smtputf8: envelope.smtputf8,
            ret: ret.into(),
            envelope_id: optional_text(envelope.envelope_id),
        })
    }
}

impl From<mail::RemoteServer> for wire::RemoteServer {
    fn from(server: mail::RemoteServer) -> Self {
        Self { host: server.host, address: server.address, tls: server.tls }
    }
}

impl From<wire::RemoteServer> for mail::RemoteServer {
    fn from(server: wire::RemoteServer) -> Self {
        Self { host: server.host, address: server.address, tls: server.tls }
    }
}

impl From<mail::Outcome> for wire::Outcome {
    fn from(outcome: mail::Outcome) -> Self {
        use wire::outcome::Result as Wire;
        let result = match outcome.verdict {
            mail::Verdict::Delivered { status, dsn_passed_on } => {
                Wire::Delivered(wire::Delivered { status: Some(status.into()), dsn_passed_on })
            }
            mail::Verdict::Deferred { status, destination_unavailable } => {
                Wire::Deferred(wire::Deferred { status: Some(status.into()), destination_unavailable })
            }
            mail::Verdict::Failed(status) => Wire::Failed(wire::Failed { status: Some(status.into()) }),
            mail::Verdict::Uncertain(status) => {
                Wire::Uncertain(wire::Uncertain { status: Some(status.into()) })
            }
            mail::Verdict::Reroute(reason) => Wire::Reroute(wire::Reroute { reason }),
        };
        Self { result: Some(result), remote: outcome.remote.map(Into::into) }
    }
}

impl TryFrom<wire::Outcome> for mail::Outcome {
    type Error = Status;

    fn try_from(outcome: wire::Outcome) -> Result<Self, Status> {
        use wire::outcome::Result as Wire;
        let given = |status: Option<wire::Status>| {
            mail::Status::try_from(status.ok_or_else(|| invalid("outcome.status", "is missing"))?)
        };
        let verdict = match outcome.result.ok_or_else(|| invalid("outcome.result", "is missing"))? {
            Wire::Delivered(d) => {
                mail::Verdict::Delivered { status: given(d.status)?, dsn_passed_on: d.dsn_passed_on }
            }
            Wire::Deferred(d) => mail::Verdict::Deferred {
                status: given(d.status)?,
                destination_unavailable: d.destination_unavailable,
            },
            Wire::Failed(f) => mail::Verdict::Failed(given(f.status)?),
            Wire::Uncertain(u) => mail::Verdict::Uncertain(given(u.status)?),
            Wire::Reroute(r) => mail::Verdict::Reroute(r.reason),
        };
        Ok(Self { verdict, remote: outcome.remote.map(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_goes_there_and_back() {
        let envelope = mail::Envelope {
            sender: "bob@example.net".parse().unwrap(),
            recipients: vec![mail::Recipient {
                address: "\"a b\"@example.org".parse().unwrap(),
                notify: Some(mail::Notify::On { success: true, failure: false, delay: true }),
                original_recipient: Some("rfc822;a@example.org".into()),
            }],
            body: mail::Body::EightBitMime,
            smtputf8: true,
            ret: Some(mail::Ret::Headers),
            envelope_id: Some("QQ314159".into()),
        };
        assert_eq!(mail::Envelope::try_from(wire::Envelope::from(envelope.clone())).unwrap(), envelope);
    }

    #[test]
    fn a_wrong_recipient_is_named() {
        let recipients = vec![
            wire::Recipient { address: "a@b".into(), ..Default::default() },
            wire::Recipient { address: "nobody".into(), ..Default::default() },
        ];
        let refused =
            mail::Envelope::try_from(wire::Envelope { recipients, ..Default::default() }).unwrap_err();
        assert_eq!(refused.message(), "envelope.recipients[1].address: the address has no domain");
    }

    #[test]
    fn what_is_unknown_or_contradicts_itself_is_named() {
        let notify = |never, success, failure, delay| wire::Envelope {
            recipients: vec![wire::Recipient {
                address: "a@b".into(),
                notify: Some(wire::Notify { never, success, failure, delay }),
                ..Default::default()
            }],
            ..Default::default()
        };
        let never_and = "envelope.recipients[0].notify: has never beside success, failure or delay";
        for (envelope, refused) in [
            (
                wire::Envelope { body: 99, ..Default::default() },
                Some("envelope.body: 99 is none of its values"),
            ),
            (
                wire::Envelope { ret: 99, ..Default::default() },
                Some("envelope.ret: 99 is none of its values"),
            ),
            (notify(true, true, false, false), Some(never_and)),
            (notify(true, false, true, false), Some(never_and)),
            (notify(true, false, false, true), Some(never_and)),
            (notify(true, false, false, false), None),
            (notify(false, true, true, true), None),
            (notify(false, false, false, false), None),
        ] {
            let read = mail::Envelope::try_from(envelope);
            assert_eq!(read.as_ref().err().map(Status::message), refused, "{read:?}");
        }
    }

    #[test]
    fn a_text_for_one_line_has_no_control_characters() {
        assert_eq!(one_line("key", "grüße 1").unwrap(), "grüße 1");
        for text in ["a\0b", "a\n", "\u{85}"] {
            assert_eq!(one_line("key", text).unwrap_err().message(), "key: has a control character");
        }
    }

    #[test]
    fn an_outcome_goes_there_and_back() {
        let status = mail::Status::new(451, mail::EnhancedStatus::new(4, 7, 1), "greylisted");
        let outcome = mail::Outcome {
            verdict: mail::Verdict::Deferred { status, destination_unavailable: false },
            remote: Some(mail::RemoteServer { host: "mx.example".into(), ..Default::default() }),
        };
        assert_eq!(mail::Outcome::try_from(wire::Outcome::from(outcome.clone())).unwrap(), outcome);
    }
}
