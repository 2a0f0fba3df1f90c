//! Aliases.

use posthorn_api::directory::v1 as wire;
use posthorn_api::error::invalid;
use tonic::Status;

use super::stored_name;
use crate::cache::Change;
use crate::directory::aliases::{self, Row};
use crate::grpc::{failed, field};
use crate::router::Router;

/// For more, one makes a list.
const MOST_TARGETS: usize = 1_000;

pub(crate) async fn create(
    router: &Router,
    request: wire::CreateAliasRequest,
) -> Result<wire::CreateAliasResponse, Status> {
    let alias = field::required("alias", request.alias)?;
    let name = field::mailbox("alias.address", &alias.address)?;
    let targets = field::addresses("alias.targets", &alias.targets, MOST_TARGETS)?;
    if targets.is_empty() {
        return Err(invalid("alias.targets", "is empty"));
    }
    aliases::insert(&router.pool, &name, &targets)
        .await
        .map_err(|error| failed(&format!("alias {name}"), error))?;
    let alias = wire::Alias { address: name.to_string(), targets };
    router.change(&Change::Mailbox(name)).await;
    Ok(wire::CreateAliasResponse { alias: Some(alias) })
}

pub(crate) async fn list(
    router: &Router,
    request: wire::ListAliasesRequest,
) -> Result<wire::ListAliasesResponse, Status> {
    let (size, limit) = field::page_size(request.page_size)?;
    let domain = super::optional_domain(&request.domain)?;
    let (after_domain, after_local) = field::after_address(&request.page_token)?;
    let mut rows = aliases::list(&router.pool, &domain, (&after_domain, &after_local), limit)
        .await
        .map_err(|error| failed("aliases", error))?;
    let next_page_token = field::cut_page(&mut rows, size, |row| stored_name(&row.local, &row.domain));
    let alias =
        |row: Row| wire::Alias { address: stored_name(&row.local, &row.domain), targets: row.targets };
    Ok(wire::ListAliasesResponse { aliases: rows.into_iter().map(alias).collect(), next_page_token })
}

pub(crate) async fn delete(
    router: &Router,
    request: wire::DeleteAliasRequest,
) -> Result<wire::DeleteAliasResponse, Status> {
    let name = field::mailbox("address", &request.address)?;
    aliases::delete(&router.pool, &name).await.map_err(|error| failed(&format!("alias {name}"), error))?;
    router.change(&Change::Mailbox(name)).await;
    Ok(wire::DeleteAliasResponse {})
}
