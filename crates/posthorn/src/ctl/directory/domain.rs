//! `ctl domain`

use anyhow::Result;
use posthorn_api::directory::v1 as api;
use serde::Serialize;

use super::{Deleted, PAGE};
use crate::ctl::connect::{Services, each_page};
use crate::ctl::output::{Output, Table};
use crate::ctl::values::rfc3339;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Domain {
    /// Take a domain in: from now on its mail is kept here
    Create {
        domain: String,
        /// The tenant it belongs to
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// All domains
    List,
    /// One domain
    Show { domain: String },
    /// Change a domain: what is not given stays as it is
    Update {
        domain: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Delete a domain that has no accounts, aliases or lists
    Delete { domain: String },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// Where mail for unknown local parts goes; empty: it is refused
    #[arg(long, value_name = "ADDRESS")]
    catch_all: Option<String>,
    /// What parts a local part from its subaddress, as in alice+news; empty: nothing does
    #[arg(long, value_name = "TEXT")]
    subaddress_separator: Option<String>,
}

impl Settings {
    fn apply(self, domain: &mut api::Domain) {
        if let Some(address) = self.catch_all {
            domain.catch_all = address;
        }
        if let Some(separator) = self.subaddress_separator {
            domain.subaddress_separator = Some(separator);
        }
    }
}

/// A domain as it is printed.
#[derive(Serialize)]
struct Row {
    domain: String,
    tenant: String,
    catch_all: String,
    subaddress_separator: String,
    created_at: Option<String>,
}

impl From<api::Domain> for Row {
    fn from(domain: api::Domain) -> Self {
        Self {
            domain: domain.name,
            tenant: domain.tenant_id,
            catch_all: domain.catch_all,
            subaddress_separator: domain.subaddress_separator.unwrap_or_default(),
            created_at: rfc3339(domain.created_at),
        }
    }
}

impl Domain {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let mut directory = services.directory().await?;
        match self {
            Self::Create { domain, tenant, settings } => {
                let tenant_id = tenant.unwrap_or_default();
                let mut domain = api::Domain { name: domain, tenant_id, ..Default::default() };
                settings.apply(&mut domain);
                let request = api::CreateDomainRequest { domain: Some(domain) };
                let made = directory.create_domain(request).await?.into_inner();
                out.record(&Row::from(made.domain.unwrap_or_default()))?;
            }
            Self::List => {
                let mut table = Table::new(&["domain", "tenant", "catch_all", "created_at"]);
                each_page(async |page_token| {
                    let request = api::ListDomainsRequest { page_size: PAGE, page_token };
                    let page = directory.list_domains(request).await?.into_inner();
                    table.rows(out, page.domains.into_iter().map(Row::from))?;
                    Ok(page.next_page_token)
                })
                .await?;
            }
            Self::Show { domain } => {
                let found = directory.get_domain(api::GetDomainRequest { name: domain }).await?.into_inner();
                out.record(&Row::from(found.domain.unwrap_or_default()))?;
            }
            Self::Update { domain, settings } => {
                let found = directory.get_domain(api::GetDomainRequest { name: domain }).await?.into_inner();
                let mut domain = found.domain.unwrap_or_default();
                settings.apply(&mut domain);
                let request = api::UpdateDomainRequest { domain: Some(domain) };
                let now = directory.update_domain(request).await?.into_inner();
                out.record(&Row::from(now.domain.unwrap_or_default()))?;
            }
            Self::Delete { domain } => {
                directory.delete_domain(api::DeleteDomainRequest { name: domain.clone() }).await?;
                Deleted::say(domain, out)?;
            }
        }
        Ok(())
    }
}
