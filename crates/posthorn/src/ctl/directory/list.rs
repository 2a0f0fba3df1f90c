//! `ctl list`

use anyhow::Result;
use posthorn_api::directory::v1 as api;
use serde::Serialize;

use super::{Deleted, PAGE};
use crate::ctl::connect::{Services, each_page};
use crate::ctl::output::{Output, Table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum List {
    /// Make a list
    Create {
        address: String,
        members: Vec<String>,
        /// Who hears of failures of the list's copies; without one the author of each message does
        #[arg(long, value_name = "ADDRESS")]
        owner: Option<String>,
    },
    /// Add members
    Add {
        address: String,
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Remove members
    Remove {
        address: String,
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Change who hears of failures; empty: the author of each message does
    Owner { address: String, owner: String },
    /// All lists, without their members
    #[command(name = "list")]
    All {
        /// Only those of a domain
        #[arg(long)]
        domain: Option<String>,
    },
    /// One list with its members
    Show { address: String },
    /// Delete a list
    Delete { address: String },
}

/// A list as it is printed.
#[derive(Serialize)]
struct Row {
    address: String,
    owner: String,
    members: Vec<String>,
}

impl From<api::DistributionList> for Row {
    fn from(list: api::DistributionList) -> Self {
        Self { address: list.address, owner: list.owner, members: list.members }
    }
}

/// A list among others: who asks for all is not shown their members.
#[derive(Serialize)]
struct Brief {
    address: String,
    owner: String,
}

impl List {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let mut directory = services.directory().await?;
        let change = match self {
            Self::Create { address, members, owner } => {
                let list = api::DistributionList { address, members, owner: owner.unwrap_or_default() };
                let request = api::CreateDistributionListRequest { list: Some(list) };
                let made = directory.create_distribution_list(request).await?.into_inner();
                return Ok(out.record(&Row::from(made.list.unwrap_or_default()))?);
            }
            Self::Show { address } => {
                let request = api::GetDistributionListRequest { address };
                let found = directory.get_distribution_list(request).await?.into_inner();
                return Ok(out.record(&Row::from(found.list.unwrap_or_default()))?);
            }
            Self::Delete { address } => {
                let request = api::DeleteDistributionListRequest { address: address.clone() };
                directory.delete_distribution_list(request).await?;
                return Deleted::say(address, out);
            }
            Self::All { domain } => return list(services, domain, out).await,
            Self::Add { address, members } => {
                api::UpdateDistributionListRequest { address, add_members: members, ..Default::default() }
            }
            Self::Remove { address, members } => {
                api::UpdateDistributionListRequest { address, remove_members: members, ..Default::default() }
            }
            Self::Owner { address, owner } => {
                api::UpdateDistributionListRequest { address, owner: Some(owner), ..Default::default() }
            }
        };
        let now = directory.update_distribution_list(change).await?.into_inner();
        Ok(out.record(&Row::from(now.list.unwrap_or_default()))?)
    }
}

async fn list(services: &Services, domain: Option<String>, out: &mut Output<'_>) -> Result<()> {
    let mut directory = services.directory().await?;
    let mut table = Table::new(&["address", "owner"]);
    let domain = domain.unwrap_or_default();
    let brief = |list: api::DistributionList| Brief { address: list.address, owner: list.owner };
    each_page(async |page_token| {
        let request =
            api::ListDistributionListsRequest { domain: domain.clone(), page_size: PAGE, page_token };
        let page = directory.list_distribution_lists(request).await?.into_inner();
        table.rows(out, page.lists.into_iter().map(brief))?;
        Ok(page.next_page_token)
    })
    .await
}
