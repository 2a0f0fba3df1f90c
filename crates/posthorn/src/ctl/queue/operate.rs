//! `ctl queue hold|release|retry|bounce`

use anyhow::Result;
use posthorn_api::queue::v1 as api;
use serde::Serialize;

use super::filter::Filter;
use crate::ctl::connect::Services;
use crate::ctl::output::Output;

/// A message by its id, or all that a filter finds.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    #[arg(conflicts_with = "filter", required_unless_present = "filter")]
    message_id: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

/// What was done, as it is printed.
#[derive(Serialize)]
struct Done {
    messages: u64,
}

impl Target {
    fn wire(self) -> Option<api::Target> {
        let target = match self.message_id {
            Some(id) => api::target::Target::MessageId(id),
            None => api::target::Target::Filter(self.filter.wire().unwrap_or_default()),
        };
        Some(api::Target { target: Some(target) })
    }

    pub(crate) async fn hold(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let request = api::HoldRequest { target: self.wire() };
        let messages = services.queue().await?.hold(request).await?.into_inner().messages;
        say("held", messages, out)
    }

    pub(crate) async fn release(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let request = api::ReleaseRequest { target: self.wire() };
        let messages = services.queue().await?.release(request).await?.into_inner().messages;
        say("released", messages, out)
    }

    pub(crate) async fn retry(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let request = api::RetryRequest { target: self.wire() };
        let messages = services.queue().await?.retry(request).await?.into_inner().messages;
        say("due now", messages, out)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Bounce {
    #[command(flatten)]
    target: Target,
    /// Say nothing to the sender
    #[arg(long)]
    silent: bool,
    /// Why, for the sender to read
    #[arg(long)]
    reason: Option<String>,
}

impl Bounce {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let request = api::BounceRequest {
            target: self.target.wire(),
            silent: self.silent,
            reason: self.reason.unwrap_or_default(),
        };
        let messages = services.queue().await?.bounce(request).await?.into_inner().messages;
        say("given up", messages, out)
    }
}

fn say(what: &str, messages: u64, out: &mut Output<'_>) -> Result<()> {
    let noun = if messages == 1 { "message" } else { "messages" };
    Ok(out.done(&Done { messages }, &format!("{messages} {noun} {what}"))?)
}

/// What was done to destinations.
pub(super) fn say_destinations(what: &str, destinations: Vec<String>, out: &mut Output<'_>) -> Result<()> {
    #[derive(Serialize)]
    struct Destinations {
        destinations: Vec<String>,
    }
    let text = match destinations.as_slice() {
        [] => format!("nothing {what}"),
        some => format!("{what}: {}", some.join(", ")),
    };
    Ok(out.done(&Destinations { destinations }, &text)?)
}
