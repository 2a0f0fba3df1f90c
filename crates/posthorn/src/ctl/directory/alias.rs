//! `ctl alias`

use anyhow::Result;
use posthorn_api::directory::v1 as api;
use serde::Serialize;

use super::{Deleted, PAGE};
use crate::ctl::connect::{Services, each_page};
use crate::ctl::output::{Output, Table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Alias {
    /// Let an address stand for others, here or elsewhere
    Create {
        address: String,
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// All aliases
    List {
        /// Only those of a domain
        #[arg(long)]
        domain: Option<String>,
    },
    /// Delete an alias
    Delete { address: String },
}

/// An alias as it is printed.
#[derive(Serialize)]
struct Row {
    address: String,
    targets: Vec<String>,
}

impl From<api::Alias> for Row {
    fn from(alias: api::Alias) -> Self {
        Self { address: alias.address, targets: alias.targets }
    }
}

impl Alias {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let mut directory = services.directory().await?;
        match self {
            Self::Create { address, targets } => {
                let request = api::CreateAliasRequest { alias: Some(api::Alias { address, targets }) };
                let made = directory.create_alias(request).await?.into_inner();
                out.record(&Row::from(made.alias.unwrap_or_default()))?;
            }
            Self::List { domain } => {
                let mut table = Table::new(&["address", "targets"]);
                let domain = domain.unwrap_or_default();
                each_page(async |page_token| {
                    let request =
                        api::ListAliasesRequest { domain: domain.clone(), page_size: PAGE, page_token };
                    let page = directory.list_aliases(request).await?.into_inner();
                    table.rows(out, page.aliases.into_iter().map(Row::from))?;
                    Ok(page.next_page_token)
                })
                .await?;
            }
            Self::Delete { address } => {
                directory.delete_alias(api::DeleteAliasRequest { address: address.clone() }).await?;
                Deleted::say(address, out)?;
            }
        }
        Ok(())
    }
}
