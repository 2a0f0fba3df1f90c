//! `ctl key`

use anyhow::Result;
use posthorn_api::directory::v1 as api;
use serde::Serialize;
use time::OffsetDateTime;

use super::{Deleted, PAGE};
use crate::ctl::connect::{Services, each_page};
use crate::ctl::output::{Output, Table};
use crate::ctl::values::{point_in_time, rfc3339};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Key {
    /// Make a key; its secret is shown this once
    Create {
        /// What it allows: submit, mailbox, directory, queue, trace
        #[arg(long = "scope", required = true, value_delimiter = ',')]
        scopes: Vec<String>,
        /// The tenant it belongs to
        #[arg(long)]
        tenant: Option<String>,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// Until when it is valid (RFC 3339)
        #[arg(long, value_name = "TIME", value_parser = point_in_time)]
        expires_at: Option<OffsetDateTime>,
    },
    /// All keys, without their secrets
    List,
    /// Revoke a key
    Delete { key_id: String },
}

/// A key as it is printed.
#[derive(Serialize)]
struct Row {
    key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    tenant: String,
    scopes: Vec<String>,
    description: String,
    created_at: Option<String>,
    expires_at: Option<String>,
}

impl From<api::Key> for Row {
    fn from(key: api::Key) -> Self {
        Self {
            key_id: key.key_id,
            secret: None,
            tenant: key.tenant_id,
            scopes: key.scopes,
            description: key.description,
            created_at: rfc3339(key.created_at),
            expires_at: rfc3339(key.expires_at),
        }
    }
}

impl Key {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let mut directory = services.directory().await?;
        match self {
            Self::Create { scopes, tenant, description, expires_at } => {
                let key = api::Key {
                    tenant_id: tenant.unwrap_or_default(),
                    description: description.unwrap_or_default(),
                    scopes,
                    expires_at: expires_at.map(posthorn_api::timestamp),
                    ..Default::default()
                };
                let made = directory.create_key(api::CreateKeyRequest { key: Some(key) }).await?.into_inner();
                out.record(&Row { secret: Some(made.secret), ..made.key.unwrap_or_default().into() })?;
            }
            Self::List => {
                let mut table = Table::new(&["key_id", "tenant", "scopes", "description", "expires_at"]);
                each_page(async |page_token| {
                    let request = api::ListKeysRequest { page_size: PAGE, page_token };
                    let page = directory.list_keys(request).await?.into_inner();
                    table.rows(out, page.keys.into_iter().map(Row::from))?;
                    Ok(page.next_page_token)
                })
                .await?;
            }
            Self::Delete { key_id } => {
                directory.delete_key(api::DeleteKeyRequest { key_id: key_id.clone() }).await?;
                Deleted::say(key_id, out)?;
            }
        }
        Ok(())
    }
}
