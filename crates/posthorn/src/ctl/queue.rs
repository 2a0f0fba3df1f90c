//! `ctl queue`

mod filter;
mod operate;
mod stats;

use anyhow::Result;
use posthorn_api::queue::v1 as api;
use serde::Serialize;

use super::connect::{Services, each_page};
use super::output::{Output, Table};
use super::values::{Origin, Server, Status, rfc3339};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Queue {
    /// The messages that wait, oldest first
    List {
        #[command(flatten)]
        filter: filter::Filter,
    },
    /// One message with all its recipients
    Show { message_id: String },
    /// Stop all attempts until released
    Hold(operate::Target),
    /// Go on with what was held
    Release(operate::Target),
    /// Make the next attempt due now
    Retry(operate::Target),
    /// Give up now, and tell the sender
    Bounce(operate::Bounce),
    /// No new attempts to a destination, or a domain's destinations, until resumed
    Suspend {
        destination: String,
        /// Why, for others to read
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Go on with a destination
    Resume { destination: String },
    /// How much waits, where, and for how long
    Stats {
        /// The most destinations to name
        #[arg(long, default_value_t = 20)]
        destinations: u32,
    },
}

/// A message as it is printed.
#[derive(Serialize)]
struct Message {
    message_id: String,
    sender: String,
    size: u64,
    received_at: Option<String>,
    expires_at: Option<String>,
    held: bool,
    poison: bool,
    recipients_total: u32,
    recipients: Vec<Recipient>,
    origin: Option<Origin>,
}

#[derive(Serialize)]
struct Recipient {
    recipient_no: u32,
    address: String,
    state: &'static str,
    attempts: u32,
    next_attempt_at: Option<String>,
    destination: String,
    last_status: Option<Status>,
    last_server: Option<Server>,
    original_recipient: String,
}

impl From<api::QueuedMessage> for Message {
    fn from(message: api::QueuedMessage) -> Self {
        Self {
            message_id: message.message_id,
            sender: message.sender,
            size: message.size,
            received_at: rfc3339(message.received_at),
            expires_at: rfc3339(message.expires_at),
            held: message.held,
            poison: message.poison,
            recipients_total: message.recipients_total,
            recipients: message.recipients.into_iter().map(Into::into).collect(),
            origin: message.origin.map(Into::into),
        }
    }
}

impl From<api::QueuedRecipient> for Recipient {
    fn from(recipient: api::QueuedRecipient) -> Self {
        Self {
            state: state_name(recipient.state()),
            recipient_no: recipient.recipient_no,
            address: recipient.address,
            attempts: recipient.attempts,
            next_attempt_at: rfc3339(recipient.next_attempt_at),
            destination: recipient.destination,
            last_status: recipient.last_status.map(Into::into),
            last_server: recipient.last_server.map(Into::into),
            original_recipient: recipient.original_recipient,
        }
    }
}

fn state_name(state: api::RecipientState) -> &'static str {
    match state {
        api::RecipientState::Unspecified => "unknown",
        api::RecipientState::Fresh => "fresh",
        api::RecipientState::Local => "local",
        api::RecipientState::Remote => "remote",
        api::RecipientState::Delivered => "delivered",
        api::RecipientState::Failed => "failed",
        api::RecipientState::Expanded => "expanded",
    }
}

impl Queue {
    pub(super) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        match self {
            Self::List { filter } => list(filter, services, out).await,
            Self::Show { message_id } => show(message_id, services, out).await,
            Self::Stats { destinations } => stats::run(destinations, services, out).await,
            Self::Hold(target) => target.hold(services, out).await,
            Self::Release(target) => target.release(services, out).await,
            Self::Retry(target) => target.retry(services, out).await,
            Self::Bounce(command) => command.run(services, out).await,
            Self::Suspend { destination, reason } => {
                let request = api::SuspendRequest { destination, reason };
                let answer = services.queue().await?.suspend(request).await?.into_inner();
                operate::say_destinations("suspended", answer.destinations, out)
            }
            Self::Resume { destination } => {
                let request = api::ResumeRequest { destination };
                let answer = services.queue().await?.resume(request).await?.into_inner();
                operate::say_destinations("resumed", answer.destinations, out)
            }
        }
    }
}

/// A line of the list for people: the message, and one of its recipients.
#[derive(Serialize)]
struct Line {
    message_id: String,
    received_at: Option<String>,
    sender: String,
    recipient: String,
    state: String,
    attempts: u32,
    next_attempt_at: Option<String>,
    last_status: Option<Status>,
}

async fn list(filter: filter::Filter, services: &Services, out: &mut Output<'_>) -> Result<()> {
    let mut client = services.queue().await?;
    let mut table = Table::new(&[
        "message_id",
        "received_at",
        "sender",
        "recipient",
        "state",
        "attempts",
        "next_attempt_at",
        "last_status",
    ]);
    let filter = filter.wire();
    each_page(async |page_token| {
        let request = api::ListMessagesRequest { filter: filter.clone(), page_size: 500, page_token };
        let page = client.list_messages(request).await?.into_inner();
        let messages = page.messages.into_iter().map(Message::from);
        if out.json() {
            messages.into_iter().try_for_each(|message| out.object(&message))?;
        } else {
            table.rows(out, messages.flat_map(lines))?;
        }
        Ok(page.next_page_token)
    })
    .await
}

fn lines(message: Message) -> Vec<Line> {
    let shown = message.recipients.len();
    let set_aside = [("held", message.held), ("poison", message.poison)];
    let marks: String = set_aside.iter().filter(|(_, is)| *is).map(|(mark, _)| format!(" {mark}")).collect();
    let sender = if message.sender.is_empty() { "<>".to_owned() } else { message.sender };
    let line = |recipient: Recipient| Line {
        message_id: message.message_id.clone(),
        received_at: message.received_at.clone(),
        sender: sender.clone(),
        recipient: recipient.address,
        state: format!("{}{marks}", recipient.state),
        attempts: recipient.attempts,
        next_attempt_at: recipient.next_attempt_at,
        last_status: recipient.last_status,
    };
    let mut lines: Vec<Line> = message.recipients.into_iter().map(line).collect();
    if let (Some(last), Some(more)) =
        (lines.last_mut(), (message.recipients_total as usize).checked_sub(shown).filter(|more| *more > 0))
    {
        last.recipient.push_str(&format!(" and {more} more"));
    }
    lines
}

async fn show(message_id: String, services: &Services, out: &mut Output<'_>) -> Result<()> {
    let request = api::ShowMessageRequest { message_id };
    let answer = services.queue().await?.show_message(request).await?.into_inner();
    let mut message = Message::from(answer.message.unwrap_or_default());
    if out.json() {
        return Ok(out.object(&message)?);
    }
    let recipients = std::mem::take(&mut message.recipients);
    out.record(&message)?;
    out.line("")?;
    let columns =
        ["address", "state", "attempts", "next_attempt_at", "destination", "last_server", "last_status"];
    Ok(Table::new(&columns).rows(out, recipients)?)
}
