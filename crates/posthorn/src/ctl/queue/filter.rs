//! Which messages.

use posthorn_api::queue::v1 as api;
use time::OffsetDateTime;

use crate::ctl::values::point_in_time;

/// All conditions that are given must hold.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "filter", multiple = true)]
pub(crate) struct Filter {
    /// Where a recipient stands, or how the message is set aside
    #[arg(long)]
    state: Option<State>,
    /// The sender's address
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// A recipient's address
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// Where it goes, as `queue stats` names it
    #[arg(long)]
    destination: Option<String>,
    /// A recipient's domain
    #[arg(long)]
    domain: Option<String>,
    /// Received before (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    before: Option<OffsetDateTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum State {
    Fresh,
    Local,
    Remote,
    Held,
    Poison,
}

impl Filter {
    /// `None` when no condition was given.
    pub(crate) fn wire(self) -> Option<api::Filter> {
        let filter = api::Filter {
            sender: self.sender.unwrap_or_default(),
            recipient: self.recipient.unwrap_or_default(),
            domain: self.domain.unwrap_or_default(),
            destination: self.destination.unwrap_or_default(),
            state: match self.state {
                Some(State::Fresh) => api::RecipientState::Fresh,
                Some(State::Local) => api::RecipientState::Local,
                Some(State::Remote) => api::RecipientState::Remote,
                Some(State::Held | State::Poison) | None => api::RecipientState::Unspecified,
            }
            .into(),
            before: self.before.map(posthorn_api::timestamp),
            held: self.state == Some(State::Held),
            poison: self.state == Some(State::Poison),
        };
        (filter != api::Filter::default()).then_some(filter)
    }
}
