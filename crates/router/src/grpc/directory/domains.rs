//! Domains.

use posthorn_api::directory::v1 as wire;
use posthorn_api::error::invalid;
use posthorn_mail::Domain;
use tonic::Status;

use crate::cache::Change;
use crate::directory::domains::{self, New, Row};
use crate::grpc::{failed, field};
use crate::router::Router;

pub(crate) async fn create(
    router: &Router,
    request: wire::CreateDomainRequest,
) -> Result<wire::CreateDomainResponse, Status> {
    let domain = field::required("domain", request.domain)?;
    let name = field::domain("domain.name", &domain.name)?;
    let tenant_id = field::tenant("domain.tenant_id", &domain.tenant_id)?;
    let catch_all = catch_all(&domain)?;
    let separator = separator(domain.subaddress_separator.as_deref().unwrap_or("+"))?;
    let new = New { name: name.as_str(), tenant_id, catch_all: catch_all.as_deref(), separator };
    let row = domains::insert(&router.pool, &new).await.map_err(|error| refused(&name, error))?;
    router.change(&Change::Domain(name)).await;
    Ok(wire::CreateDomainResponse { domain: Some(row.into()) })
}

pub(crate) async fn get(
    router: &Router,
    request: wire::GetDomainRequest,
) -> Result<wire::GetDomainResponse, Status> {
    let name = field::domain("name", &request.name)?;
    let row = domains::get(&router.pool, name.as_str()).await.map_err(|error| refused(&name, error))?;
    Ok(wire::GetDomainResponse { domain: Some(row.into()) })
}

pub(crate) async fn update(
    router: &Router,
    request: wire::UpdateDomainRequest,
) -> Result<wire::UpdateDomainResponse, Status> {
    let domain = field::required("domain", request.domain)?;
    let name = field::domain("domain.name", &domain.name)?;
    let catch_all = catch_all(&domain)?;
    let separator = separator(domain.subaddress_separator.as_deref().unwrap_or_default())?;
    let row = domains::get(&router.pool, name.as_str()).await.map_err(|error| refused(&name, error))?;
    if !domain.tenant_id.is_empty() && domain.tenant_id != row.tenant_id {
        return Err(invalid("domain.tenant_id", "cannot change"));
    }
    let row = domains::update(&router.pool, name.as_str(), catch_all.as_deref(), separator)
        .await
        .map_err(|error| refused(&name, error))?;
    router.change(&Change::Domain(name)).await;
    Ok(wire::UpdateDomainResponse { domain: Some(row.into()) })
}

pub(crate) async fn list(
    router: &Router,
    request: wire::ListDomainsRequest,
) -> Result<wire::ListDomainsResponse, Status> {
    let (size, limit) = field::page_size(request.page_size)?;
    let after = field::after_name(&request.page_token)?;
    let mut rows =
        domains::list(&router.pool, after, limit).await.map_err(|error| failed("domains", error))?;
    let next_page_token = field::cut_page(&mut rows, size, |row| row.name.clone());
    Ok(wire::ListDomainsResponse { domains: rows.into_iter().map(Into::into).collect(), next_page_token })
}

pub(crate) async fn delete(
    router: &Router,
    request: wire::DeleteDomainRequest,
) -> Result<wire::DeleteDomainResponse, Status> {
    let name = field::domain("name", &request.name)?;
    domains::delete(&router.pool, name.as_str()).await.map_err(|error| refused(&name, error))?;
    router.change(&Change::Domain(name)).await;
    Ok(wire::DeleteDomainResponse {})
}

fn refused(name: &Domain, error: crate::directory::Error) -> Status {
    failed(&format!("domain {name}"), error)
}

fn catch_all(domain: &wire::Domain) -> Result<Option<String>, Status> {
    let address = field::optional_address("domain.catch_all", &domain.catch_all)?;
    Ok(address.map(|address| address.to_string()))
}

/// A few characters that may stand in a local part; none: no subaddressing.
fn separator(text: &str) -> Result<Option<&str>, Status> {
    let fits = text.len() <= 8
        && text.chars().all(|c| c.is_ascii_graphic() && !c.is_ascii_alphanumeric() && c != '@');
    if !fits {
        return Err(invalid("domain.subaddress_separator", "is not up to 8 signs such as + or -"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

impl From<Row> for wire::Domain {
    fn from(row: Row) -> Self {
        Self {
            name: row.name,
            tenant_id: row.tenant_id,
            catch_all: row.catch_all.unwrap_or_default(),
            subaddress_separator: Some(row.separator.unwrap_or_default()),
            created_at: Some(posthorn_api::timestamp(row.created_at)),
        }
    }
}
