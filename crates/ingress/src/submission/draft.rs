//! What a request asks for, checked.

use posthorn_api::error::invalid;
use posthorn_api::mail::v1 as wire_mail;
use posthorn_api::submission::v1::StructuredMessage;
use posthorn_mail::{Address, Body, Envelope, Recipient, ReversePath};
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

/// What goes into the headers of notices must not end them.
fn check_notices(envelope: &Envelope) -> Result<(), Status> {
    let is_text = |text: &str| !text.chars().any(char::is_control);
    if !envelope.envelope_id.as_deref().is_none_or(|id| is_text(id) && id.is_ascii() && id.len() <= 100) {
        return Err(invalid("envelope.envelope_id", "is not at most 100 characters of printable ASCII"));
    }
    for (at, recipient) in envelope.recipients.iter().enumerate() {
        let original = recipient.original_recipient.as_deref();
        if !original
            .is_none_or(|original| is_text(original) && original.contains(';') && original.len() <= 500)
        {
            let field = format!("envelope.recipients[{at}].original_recipient");
            return Err(invalid(field, "is not of the form rfc822;address"));
        }
    }
    Ok(())
}
