//! The parameters of MAIL and RCPT.

use posthorn_mail::{Body, EnhancedStatus, Notify, Ret, Status};

use super::command::{number, syntax};
use crate::xtext;

/// What MAIL said beside the sender.
#[derive(Debug, Default)]
pub(super) struct MailParameters {
    /// SIZE= (RFC 1870); 0 is not known.
    pub(super) size: u64,
    pub(super) body: Option<Body>,
    pub(super) smtputf8: bool,
    pub(super) ret: Option<Ret>,
    pub(super) envelope_id: Option<String>,
}

/// What RCPT said beside the recipient.
#[derive(Debug, Default)]
pub(super) struct RcptParameters {
    pub(super) notify: Option<Notify>,
    pub(super) original_recipient: Option<String>,
}

impl MailParameters {
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        let mut parameters = Self::default();
        each(text, |keyword, value| {
            match (keyword, value) {
                ("SIZE", Some(value)) => parameters.size = size(value)?,
                ("BODY", Some(value)) => parameters.body = Some(body(value)?),
                ("SMTPUTF8", None) => parameters.smtputf8 = true,
                ("RET", Some(value)) => parameters.ret = Some(ret(value)?),
                ("ENVID", Some(value)) => parameters.envelope_id = Some(envelope_id(value)?),
                ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID", _) => return Err(malformed(keyword)),
                _ => return Err(unknown()),
            }
            Ok(())
        })?;
        Ok(parameters)
    }
}

impl RcptParameters {
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        let mut parameters = Self::default();
        each(text, |keyword, value| {
            match (keyword, value) {
                ("NOTIFY", Some(value)) => parameters.notify = Some(notify(value)?),
                ("ORCPT", Some(value)) => parameters.original_recipient = Some(original(value)?),
                ("NOTIFY" | "ORCPT", None) => return Err(malformed(keyword)),
                _ => return Err(unknown()),
            }
            Ok(())
        })?;
        Ok(parameters)
    }
}

/// Calls `take` with each parameter, its keyword in upper case; one that comes twice is refused.
fn each(text: &str, mut take: impl FnMut(&str, Option<&str>) -> Result<(), Status>) -> Result<(), Status> {
    let mut seen: Vec<String> = Vec::new();
    for parameter in text.split(' ').filter(|p| !p.is_empty()) {
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (parameter, None),
        };
        let keyword = keyword.to_ascii_uppercase();
        if seen.contains(&keyword) {
            return Err(syntax("A parameter was given twice"));
        }
        take(&keyword, value)?;
        seen.push(keyword);
    }
    Ok(())
}

/// RFC 5321 §4.1.1.11.
fn unknown() -> Status {
    Status::new(555, EnhancedStatus::new(5, 5, 4), "Unsupported parameter")
}

fn malformed(keyword: &str) -> Status {
    syntax(&format!("Bad value for {keyword}"))
}

/// RFC 1870 §3: up to 20 digits; a number that is too large to be kept is too large for any limit.
fn size(value: &str) -> Result<u64, Status> {
    let digits = (1..=20).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    if digits { Ok(number(value).unwrap_or(u64::MAX)) } else { Err(malformed("SIZE")) }
}

fn body(value: &str) -> Result<Body, Status> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        "BINARYMIME" => Ok(Body::BinaryMime),
        _ => Err(malformed("BODY")),
    }
}

fn ret(value: &str) -> Result<Ret, Status> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Ok(Ret::Full),
        "HDRS" => Ok(Ret::Headers),
        _ => Err(malformed("RET")),
    }
}

/// RFC 3461 §4.4: at most 100 octets of xtext that stands for printable ASCII.
fn envelope_id(value: &str) -> Result<String, Status> {
    decoded(value).filter(|id| value.len() <= 100 && id.is_ascii()).ok_or_else(|| malformed("ENVID"))
}

/// RFC 3461 §4.2: `type;xtext`, at most 500 octets.
fn original(value: &str) -> Result<String, Status> {
    let (kind, address) =
        value.split_once(';').filter(|_| value.len() <= 500).ok_or_else(|| malformed("ORCPT"))?;
    let is_atom = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    decoded(address)
        .filter(|_| is_atom)
        .map(|address| format!("{kind};{address}"))
        .ok_or_else(|| malformed("ORCPT"))
}

/// Text that goes into the headers of notices: no line break may come in this way.
fn decoded(xtext: &str) -> Option<String> {
    xtext::decode(xtext).filter(|text| !text.is_empty() && !text.chars().any(char::is_control))
}

/// RFC 3461 §4.1: NEVER alone, or some of the others.
fn notify(value: &str) -> Result<Notify, Status> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for occasion in value.split(',') {
        match occasion.to_ascii_uppercase().as_str() {
            "SUCCESS" => success = true,
            "FAILURE" => failure = true,
            "DELAY" => delay = true,
            _ => return Err(malformed("NOTIFY")),
        }
    }
    Ok(Notify::On { success, failure, delay })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_parameters() {
        let all = "SIZE=100 body=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B1";
        let got = MailParameters::parse(all).unwrap();
        assert_eq!((got.size, got.body, got.smtputf8), (100, Some(Body::EightBitMime), true));
        assert_eq!((got.ret, got.envelope_id.as_deref()), (Some(Ret::Headers), Some("QQ+1")));
        for (text, code) in [
            ("SIZE=x", 501),
            ("SIZE", 501),
            ("SIZE=+1", 501),
            ("SIZE=1 size=2", 501),
            ("SMTPUTF8=1", 501),
            ("BODY=9BIT", 501),
            ("RET=SOME", 501),
            ("ENVID=a+0D+0Ab", 501),
            ("ENVID=", 501),
            ("AUTH=<>", 555),
            ("XYZ", 555),
            ("NOTIFY=NEVER", 555),
        ] {
            assert_eq!(MailParameters::parse(text).unwrap_err().code(), code, "{text}");
        }
        assert_eq!(MailParameters::parse("SIZE=99999999999999999999").unwrap().size, u64::MAX);
    }

    #[test]
    fn rcpt_parameters() {
        let got = RcptParameters::parse("NOTIFY=success,DELAY ORCPT=rfc822;Bob+2B@ivory").unwrap();
        assert_eq!(got.notify, Some(Notify::On { success: true, failure: false, delay: true }));
        assert_eq!(got.original_recipient.as_deref(), Some("rfc822;Bob+@ivory"));
        assert_eq!(RcptParameters::parse("NOTIFY=NEVER").unwrap().notify, Some(Notify::Never));
        for (text, code) in [
            ("NOTIFY=", 501),
            ("NOTIFY=NEVER,SUCCESS", 501),
            ("NOTIFY=SUCCESS,", 501),
            ("NOTIFY", 501),
            ("ORCPT=bob@ivory", 501),
            ("ORCPT=rfc822;a b", 555),
            ("ORCPT=rfc822;a=b", 501),
            ("ORCPT=rfc822;a+0Ab", 501),
            ("ORCPT=;a", 501),
            ("SIZE=1", 555),
        ] {
            assert_eq!(RcptParameters::parse(text).unwrap_err().code(), code, "{text}");
        }
    }
}
