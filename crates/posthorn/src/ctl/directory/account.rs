//! `ctl account`

use std::io::BufRead as _;

use anyhow::{Context as _, Result};
use posthorn_api::directory::v1 as api;
use serde::Serialize;

use super::{Deleted, PAGE};
use crate::ctl::connect::{Services, each_page};
use crate::ctl::output::{Output, Table};
use crate::ctl::values::{rfc3339, size};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Account {
    /// Make an account; its mailbox comes into being at its first use
    Create {
        address: String,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        settings: Settings,
    },
    /// All accounts
    List {
        /// Only those of a domain
        #[arg(long)]
        domain: Option<String>,
    },
    /// One account
    Show { address: String },
    /// Change an account: what is not given stays as it is
    Update {
        address: String,
        #[command(flatten)]
        password: Password,
        /// Remove the password
        #[arg(long, conflicts_with_all = ["password", "password_stdin"])]
        no_password: bool,
        /// Refuse mail for now (450), until it is enabled again
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Take mail again
        #[arg(long)]
        enable: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Delete an account; its mail stays in the store
    ///
    /// The address takes no more mail, and its mailbox can no longer be opened. What is in the mailbox is not deleted.
    Delete { address: String },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Password {
    /// The password; others on this machine can see it: better by standard input
    #[arg(long)]
    password: Option<String>,
    /// Read the password from the first line of standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
}

impl Password {
    fn read(self) -> Result<Option<String>> {
        if !self.password_stdin {
            return Ok(self.password);
        }
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).context("reading the password from standard input")?;
        Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// The most that the mailbox holds, such as 1GiB; 0: no limit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    quota: Option<u64>,
    /// The name of the person
    #[arg(long)]
    name: Option<String>,
}

impl Settings {
    fn apply(self, account: &mut api::Account) {
        if let Some(quota) = self.quota {
            account.quota_bytes = quota;
        }
        if let Some(name) = self.name {
            account.display_name = name;
        }
    }
}

/// An account as it is printed.
#[derive(Serialize)]
struct Row {
    address: String,
    account_id: String,
    name: String,
    quota_bytes: u64,
    disabled: bool,
    created_at: Option<String>,
}

impl From<api::Account> for Row {
    fn from(account: api::Account) -> Self {
        Self {
            address: account.address,
            account_id: account.account_id,
            name: account.display_name,
            quota_bytes: account.quota_bytes,
            disabled: account.disabled,
            created_at: rfc3339(account.created_at),
        }
    }
}

impl Account {
    pub(crate) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let mut directory = services.directory().await?;
        match self {
            Self::Create { address, password, settings } => {
                let mut account = api::Account { address, ..Default::default() };
                settings.apply(&mut account);
                let password = password.read()?.unwrap_or_default();
                let request = api::CreateAccountRequest { account: Some(account), password };
                let made = directory.create_account(request).await?.into_inner();
                out.record(&Row::from(made.account.unwrap_or_default()))?;
            }
            Self::List { domain } => {
                let mut table = Table::new(&["address", "name", "quota_bytes", "disabled", "created_at"]);
                let domain = domain.unwrap_or_default();
                each_page(async |page_token| {
                    let request =
                        api::ListAccountsRequest { domain: domain.clone(), page_size: PAGE, page_token };
                    let page = directory.list_accounts(request).await?.into_inner();
                    table.rows(out, page.accounts.into_iter().map(Row::from))?;
                    Ok(page.next_page_token)
                })
                .await?;
            }
            Self::Show { address } => {
                let found = directory.get_account(api::GetAccountRequest { address }).await?.into_inner();
                out.record(&Row::from(found.account.unwrap_or_default()))?;
            }
            Self::Update { address, password, no_password, disable, enable, settings } => {
                let found = directory.get_account(api::GetAccountRequest { address }).await?.into_inner();
                let mut account = found.account.unwrap_or_default();
                settings.apply(&mut account);
                account.disabled = disable || (account.disabled && !enable);
                let password = if no_password { Some(String::new()) } else { password.read()? };
                let request = api::UpdateAccountRequest { account: Some(account), password };
                let now = directory.update_account(request).await?.into_inner();
                out.record(&Row::from(now.account.unwrap_or_default()))?;
            }
            Self::Delete { address } => {
                directory.delete_account(api::DeleteAccountRequest { address: address.clone() }).await?;
                Deleted::say(address, out)?;
            }
        }
        Ok(())
    }
}
