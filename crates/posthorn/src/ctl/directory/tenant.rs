//! `ctl tenant`

use anyhow::Result;
use posthorn_api::directory::v1 as api;
use serde::Serialize;

use super::{Deleted, PAGE};
use crate::ctl::connect::{Services, each_page};
use crate::ctl::output::{Output, Table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Tenant {
    /// Make a tenant
    Create {
        /// A short name: a-z, 0-9 and hyphens
        tenant: String,
        /// What people call it
        #[arg(long)]
        name: Option<String>,
    },
    /// All tenants
    List,
    /// Delete a tenant that has no domains and no keys
    Delete { tenant: String },
}

/// A tenant as it is printed.
#[derive(Serialize)]
struct Row {
    tenant: String,
    name: String,
}

impl From<api::Tenant> for Row {
    fn from(tenant: api::Tenant) -> Self {
        Self { tenant: tenant.tenant_id, name: tenant.display_name }
    }
}

impl Tenant {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let mut directory = services.directory().await?;
        match self {
            Self::Create { tenant, name } => {
                let tenant = api::Tenant { tenant_id: tenant, display_name: name.unwrap_or_default() };
                let request = api::CreateTenantRequest { tenant: Some(tenant) };
                let made = directory.create_tenant(request).await?.into_inner();
                out.record(&Row::from(made.tenant.unwrap_or_default()))?;
            }
            Self::List => {
                let mut table = Table::new(&["tenant", "name"]);
                each_page(async |page_token| {
                    let request = api::ListTenantsRequest { page_size: PAGE, page_token };
                    let page = directory.list_tenants(request).await?.into_inner();
                    table.rows(out, page.tenants.into_iter().map(Row::from))?;
                    Ok(page.next_page_token)
                })
                .await?;
            }
            Self::Delete { tenant } => {
                directory.delete_tenant(api::DeleteTenantRequest { tenant_id: tenant.clone() }).await?;
                Deleted::say(tenant, out)?;
            }
        }
        Ok(())
    }
}
