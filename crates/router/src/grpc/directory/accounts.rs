//! Accounts.

use posthorn_api::directory::v1 as wire;
use posthorn_api::error::invalid;
use tonic::Status;
use uuid::Uuid;

use super::stored_name;
use crate::cache::Change;
use crate::directory::accounts::{self, Password, Row, Settings};
use crate::grpc::{failed, field};
use crate::known::MailboxName;
use crate::router::Router;
use crate::secret;

/// What a password may have at most, so that hashing it stays cheap.
const LONGEST_PASSWORD: usize = 1_024;

pub(crate) async fn create(
    router: &Router,
    request: wire::CreateAccountRequest,
) -> Result<wire::CreateAccountResponse, Status> {
    let account = field::required("account", request.account)?;
    let name = field::mailbox("account.address", &account.address)?;
    let settings = settings(&account)?;
    let password = match request.password.as_str() {
        "" => None,
        password => Some(hashed(password).await?),
    };
    let row = accounts::insert(&router.pool, Uuid::now_v7(), &name, &settings, password.as_deref())
        .await
        .map_err(|error| refused(&name, error))?;
    router.change(&Change::Mailbox(name)).await;
    Ok(wire::CreateAccountResponse { account: Some(row.into()) })
}

pub(crate) async fn get(
    router: &Router,
    request: wire::GetAccountRequest,
) -> Result<wire::GetAccountResponse, Status> {
    let name = field::mailbox("address", &request.address)?;
    let row = accounts::get(&router.pool, &name).await.map_err(|error| refused(&name, error))?;
    Ok(wire::GetAccountResponse { account: Some(row.into()) })
}

pub(crate) async fn update(
    router: &Router,
    request: wire::UpdateAccountRequest,
) -> Result<wire::UpdateAccountResponse, Status> {
    let account = field::required("account", request.account)?;
    let name = field::mailbox("account.address", &account.address)?;
    let settings = settings(&account)?;
    let password = match request.password.as_deref() {
        None => Password::Unchanged,
        Some("") => Password::Removed,
        Some(password) => Password::Hash(hashed(password).await?),
    };
    let row = accounts::update(&router.pool, &name, &settings, &password)
        .await
        .map_err(|error| refused(&name, error))?;
    router.change(&Change::Mailbox(name)).await;
    Ok(wire::UpdateAccountResponse { account: Some(row.into()) })
}

pub(crate) async fn list(
    router: &Router,
    request: wire::ListAccountsRequest,
) -> Result<wire::ListAccountsResponse, Status> {
    let (size, limit) = field::page_size(request.page_size)?;
    let domain = super::optional_domain(&request.domain)?;
    let (after_domain, after_local) = field::after_address(&request.page_token)?;
    let mut rows = accounts::list(&router.pool, &domain, (&after_domain, &after_local), limit)
        .await
        .map_err(|error| failed("accounts", error))?;
    let next_page_token = field::cut_page(&mut rows, size, |row| stored_name(&row.local, &row.domain));
    Ok(wire::ListAccountsResponse { accounts: rows.into_iter().map(Into::into).collect(), next_page_token })
}

pub(crate) async fn delete(
    router: &Router,
    request: wire::DeleteAccountRequest,
) -> Result<wire::DeleteAccountResponse, Status> {
    let name = field::mailbox("address", &request.address)?;
    accounts::delete(&router.pool, &name).await.map_err(|error| refused(&name, error))?;
    router.change(&Change::Mailbox(name)).await;
    Ok(wire::DeleteAccountResponse {})
}

fn refused(name: &MailboxName, error: crate::directory::Error) -> Status {
    failed(&format!("account {name}"), error)
}

fn settings(account: &wire::Account) -> Result<Settings<'_>, Status> {
    Ok(Settings {
        display_name: field::text("account.display_name", &account.display_name, 200)?,
        quota_bytes: i64::try_from(account.quota_bytes)
            .map_err(|_| invalid("account.quota_bytes", "is larger than 2^63"))?,
        disabled: account.disabled,
    })
}

async fn hashed(password: &str) -> Result<String, Status> {
    if password.len() > LONGEST_PASSWORD {
        return Err(invalid("password", format!("is longer than {LONGEST_PASSWORD} bytes")));
    }
    let password = password.to_owned();
    match tokio::task::spawn_blocking(move || secret::hash_password(&password)).await {
        Ok(Ok(hash)) => Ok(hash),
        Ok(Err(error)) => Err(Status::internal(error.to_string())),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

impl From<Row> for wire::Account {
    fn from(row: Row) -> Self {
        Self {
            account_id: row.account_id.to_string(),
            address: stored_name(&row.local, &row.domain),
            display_name: row.display_name,
            quota_bytes: u64::try_from(row.quota_bytes).unwrap_or_default(),
            disabled: row.disabled,
            created_at: Some(posthorn_api::timestamp(row.created_at)),
        }
    }
}
