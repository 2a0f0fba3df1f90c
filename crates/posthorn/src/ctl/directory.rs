//! What the router's directory holds.

mod account;
mod alias;
mod domain;
mod key;
mod list;
mod route;
mod tenant;

pub(super) use account::Account;
pub(super) use alias::Alias;
pub(super) use domain::Domain;
pub(super) use key::Key;
pub(super) use list::List;
pub(super) use route::Route;
pub(super) use tenant::Tenant;

/// Rows asked for at a time.
const PAGE: u32 = 500;

/// What a command that removes something prints as JSON.
#[derive(Debug, serde::Serialize)]
struct Deleted {
    deleted: String,
}

impl Deleted {
    /// Says that it is gone.
    fn say(name: String, out: &mut super::output::Output<'_>) -> anyhow::Result<()> {
        let text = format!("{name} is deleted");
        Ok(out.done(&Self { deleted: name }, &text)?)
    }
}
