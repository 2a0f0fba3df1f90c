//! What a request asks for, checked.

use posthorn_api::error::invalid;
use posthorn_api::mail::v1 as wire_mail;
use posthorn_api::one_line;
use posthorn_api::submission::v1::StructuredMessage;
use posthorn_mail::{Address, Body, Envelope, Recipient, ReversePath};
use posthorn_smtp::xtext;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::compose::addresses;

/// The longest idempotency key.
const KEY_LIMIT: usize = 255;

/// How the content comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// With the request, whose digest is known at once.
    Whole,
    /// After it: the digest is known at the end.
    Streamed,
}

/// A message that is to be taken in, but for its content.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) envelope: Envelope,
    /// Those in whose name it comes, each with the field that says so.
    pub(super) authors: Vec<(&'static str, Address)>,
    /// Empty: none.
    pub(super) key: String,
    pub(super) form: Form,
    /// Of the request as far as it is known.
    pub(super) digest: Sha256,
}

impl Draft {
    /// A draft with the envelope as given.
    pub(super) fn new(envelope: wire_mail::Envelope, key: String, form: Form) -> Result<Self, Status> {
        if key.chars().count() > KEY_LIMIT {
            return Err(invalid("idempotency_key", "is longer than 255 characters"));
        }
        one_line("idempotency_key", &key)?;
        let digest = Sha256::new_with_prefix(envelope.encode_length_delimited_to_vec());
        let mut envelope = Envelope::try_from(envelope)?;
        if envelope.recipients.is_empty() {
            return Err(invalid("envelope.recipients", "there is none"));
        }
        if envelope.body == Body::BinaryMime {
            return Err(invalid("envelope.body", "a message is handed in as lines"));
        }
        check_notices(&envelope)?;
        let is_ascii = |path: &ReversePath| path.address().is_none_or(|address| address.is_ascii());
        envelope.smtputf8 |=
            !is_ascii(&envelope.sender) || !envelope.recipients.iter().all(|to| to.address.is_ascii());
        let authors = envelope.sender.address().map(|sender| ("envelope.sender", sender.clone()));
        Ok(Self { authors: authors.into_iter().collect(), envelope, key, form, digest })
    }

    /// A draft of a structured message, whose fields stand in for what the envelope leaves empty.
    pub(super) fn structured(
        mut envelope: wire_mail::Envelope,
        key: String,
        message: &StructuredMessage,
    ) -> Result<Self, Status> {
        if envelope.sender.is_empty()
            && let Some(from) = &message.from
        {
            envelope.sender = from.address.clone();
        }
        if envelope.recipients.is_empty() {
            let lists = [("to", &message.to), ("cc", &message.cc), ("bcc", &message.bcc)];
            for (name, list) in lists {
                let list = addresses(&format!("message.{name}"), list)?;
                envelope.recipients.extend(list.into_iter().map(|address| Recipient::new(address).into()));
            }
            if envelope.recipients.is_empty() {
                return Err(invalid("message.to", "there is no recipient"));
            }
        }
        let mut draft = Self::new(envelope, key, Form::Whole)?;
        let from = addresses("message.from", message.from.as_slice())?;
        draft.authors.splice(0..0, from.into_iter().map(|from| ("message.from", from)));
        // An address in UTF-8 stands in the headers too.
        let mailboxes = message.from.iter().chain(&message.to).chain(&message.cc).chain(&message.reply_to);
        draft.envelope.smtputf8 |= !mailboxes.map(|mailbox| &mailbox.address).all(|a| is_ascii_local(a));
        draft.digest.update(message.encode_length_delimited_to_vec());
        Ok(draft)
    }
}

fn is_ascii_local(address: &str) -> bool {
    address.rsplit_once('@').is_none_or(|(local, _)| local.is_ascii())
}

/// The longest ENVID and ORCPT, as they go over the wire: in xtext (RFC 3461 §4.4, §4.2).
const ENVELOPE_ID_LIMIT: usize = 100;
const ORIGINAL_RECIPIENT_LIMIT: usize = 500;

/// What goes into the headers of notices must not end them, and what goes into MAIL and RCPT must fit.
fn check_notices(envelope: &Envelope) -> Result<(), Status> {
    if let Some(id) = envelope.envelope_id.as_deref() {
        check_notice("envelope.envelope_id", id, ENVELOPE_ID_LIMIT)?;
        if !id.is_ascii() {
            return Err(invalid("envelope.envelope_id", "is not ASCII"));
        }
    }
    for (at, recipient) in envelope.recipients.iter().enumerate() {
        if let Some(original) = recipient.original_recipient.as_deref() {
            let field = format!("envelope.recipients[{at}].original_recipient");
            check_notice(&field, original, ORIGINAL_RECIPIENT_LIMIT)?;
            if !original.contains(';') {
                return Err(invalid(field, "is not of the form rfc822;address"));
            }
        }
    }
    Ok(())
}

fn check_notice(field: &str, text: &str, longest: usize) -> Result<(), Status> {
    one_line(field, text)?;
    if xtext::encode(text).len() > longest {
        return Err(invalid(field, format!("is longer than {longest} octets in xtext (RFC 3461 §4)")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3461 §4.2, §4.4: what counts is what goes over the wire, three octets for each `+`, `=` and blank.
    #[test]
    fn what_dsn_carries_is_measured_as_it_is_sent() {
        let check = |id: &str, original: &str| {
            let recipients = vec![Recipient::new("a@b.example".parse().unwrap())];
            let mut envelope = Envelope::new(ReversePath::Null, recipients);
            envelope.envelope_id = Some(id.to_owned());
            envelope.recipients[0].original_recipient = Some(original.to_owned());
            check_notices(&envelope).map_err(|status| status.message().to_owned())
        };
        let original = |count| format!("rfc822;{}", "+".repeat(count));
        assert_eq!(check(&"x".repeat(100), &original(164)), Ok(()));
        assert_eq!(check(&"+".repeat(33), &original(0)), Ok(()));
        for (id, original, wanted) in [
            ("x".repeat(101), original(1), "envelope.envelope_id: is longer than 100 octets"),
            ("+".repeat(34), original(1), "envelope.envelope_id: is longer than 100 octets"),
            ("é".to_owned(), original(1), "envelope.envelope_id: is not ASCII"),
            ("a\nb".to_owned(), original(1), "envelope.envelope_id: has a control character"),
            (
                "x".to_owned(),
                original(165),
                "envelope.recipients[0].original_recipient: is longer than 500 octets",
            ),
            (
                "x".to_owned(),
                "a@b".to_owned(),
                "envelope.recipients[0].original_recipient: is not of the form",
            ),
        ] {
            let refused = check(&id, &original).unwrap_err();
            assert!(refused.starts_with(wanted), "{refused}");
        }
    }
}
