//! The envelope as MAIL and RCPT build it.

use posthorn_mail::{Address, Body, EnhancedStatus, Envelope, Recipient, ReversePath, Status};

use super::command::{mailbox, path, syntax};
use super::parameters::{MailParameters, RcptParameters};
use super::settings::Settings;

/// A transaction between MAIL and the content.
#[derive(Debug)]
pub(super) struct Transaction {
    envelope: Envelope,
    /// A RCPT was given, taken or not.
    pub(super) tried: bool,
}

impl Transaction {
    /// Reads the argument of MAIL.
    pub(super) fn mail(argument: &str, settings: &Settings) -> Result<Self, Status> {
        let (path, parameters) =
            path(argument, "FROM:").ok_or_else(|| syntax("Syntax: MAIL FROM:<address>"))?;
        let parameters = MailParameters::parse(parameters)?;
        if !path.is_ascii() && !parameters.smtputf8 {
            return Err(needs_smtputf8());
        }
        let sender = if path.is_empty() {
            ReversePath::Null
        } else {
            let address = mailbox(path).map_err(|e| bad_address(7, "sender", e))?;
            ReversePath::Mailbox(address)
        };
        if parameters.size > settings.message_size {
            return Err(super::content::Fault::TooLarge.status());
        }
        let envelope = Envelope {
            sender,
            recipients: Vec::new(),
            body: parameters.body.unwrap_or_default(),
            smtputf8: parameters.smtputf8,
            ret: parameters.ret,
            envelope_id: parameters.envelope_id,
        };
        Ok(Self { envelope, tried: false })
    }

    /// Reads the argument of RCPT. It is not taken yet.
    pub(super) fn rcpt(&self, argument: &str, settings: &Settings) -> Result<Recipient, Status> {
        let (path, parameters) = path(argument, "TO:").ok_or_else(|| syntax("Syntax: RCPT TO:<address>"))?;
        let RcptParameters { notify, original_recipient } = RcptParameters::parse(parameters)?;
        if !path.is_ascii() && !self.envelope.smtputf8 {
            return Err(needs_smtputf8());
        }
        // RFC 5321 §4.5.1: the one mailbox that needs no domain.
        let address: Address = if path.eq_ignore_ascii_case("postmaster") {
            settings.postmaster.clone()
        } else {
            mailbox(path).map_err(|e| bad_address(3, "recipient", e))?
        };
        Ok(Recipient { address, notify, original_recipient })
    }

    pub(super) fn sender(&self) -> &ReversePath {
        &self.envelope.sender
    }

    pub(super) fn body(&self) -> Body {
        self.envelope.body
    }

    pub(super) fn recipients(&self) -> usize {
        self.envelope.recipients.len()
    }

    pub(super) fn accept(&mut self, recipient: Recipient) {
        self.envelope.recipients.push(recipient);
    }

    pub(super) fn into_envelope(self) -> Envelope {
        self.envelope
    }
}

/// RFC 6531 §3.7.4.2 and RFC 3463 X.6.7.
fn needs_smtputf8() -> Status {
    Status::new(553, EnhancedStatus::new(5, 6, 7), "An address in UTF-8 needs SMTPUTF8")
}

/// X.1.7 (sender) and X.1.3 (recipient): bad mailbox address syntax.
fn bad_address(detail: u16, whose: &str, why: impl std::fmt::Display) -> Status {
    Status::new(501, EnhancedStatus::new(5, 1, detail), format!("Bad {whose} address syntax: {why}"))
}
