//! Distribution lists.

use posthorn_api::directory::v1 as wire;
use tonic::Status;

use super::stored_name;
use crate::cache::Change;
use crate::directory::{Error, lists};
use crate::grpc::{failed, field};
use crate::known::MailboxName;
use crate::router::Router;

pub(crate) async fn create(
    router: &Router,
    request: wire::CreateDistributionListRequest,
) -> Result<wire::CreateDistributionListResponse, Status> {
    let list = field::required("list", request.list)?;
    let name = field::mailbox("list.address", &list.address)?;
    let members = field::addresses("list.members", &list.members, router.policy.targets)?;
    let owner = field::optional_address("list.owner", &list.owner)?.map(|owner| owner.to_string());
    insert(router, &name, owner.as_deref(), &members).await.map_err(|error| refused(&name, error))?;
    let list =
        wire::DistributionList { address: name.to_string(), members, owner: owner.unwrap_or_default() };
    router.change(&Change::Mailbox(name)).await;
    Ok(wire::CreateDistributionListResponse { list: Some(list) })
}

async fn insert(
    router: &Router,
    name: &MailboxName,
    owner: Option<&str>,
    members: &[String],
) -> Result<(), Error> {
    let mut transaction = router.pool.begin().await?;
    lists::insert(&mut transaction, name, owner).await?;
    lists::add_members(&mut transaction, name, members).await?;
    Ok(transaction.commit().await?)
}

pub(crate) async fn get(
    router: &Router,
    request: wire::GetDistributionListRequest,
) -> Result<wire::GetDistributionListResponse, Status> {
    let name = field::mailbox("address", &request.address)?;
    let row = lists::get(&router.pool, &name).await.map_err(|error| refused(&name, error))?;
    let members = lists::members(&router.pool, &name).await.map_err(|error| refused(&name, error))?;
    Ok(wire::GetDistributionListResponse { list: Some(shown(row, members)) })
}

pub(crate) async fn update(
    router: &Router,
    request: wire::UpdateDistributionListRequest,
) -> Result<wire::UpdateDistributionListResponse, Status> {
    let name = field::mailbox("address", &request.address)?;
    let most = router.policy.targets;
    let change = Update {
        add: field::addresses("add_members", &request.add_members, most)?,
        remove: field::addresses("remove_members", &request.remove_members, most)?,
        owner: match request.owner.as_deref() {
            None => None,
            Some(owner) => Some(field::optional_address("owner", owner)?.map(|owner| owner.to_string())),
        },
    };
    let list = apply(router, &name, &change).await.map_err(|error| refused(&name, error))?;
    router.change(&Change::Mailbox(name)).await;
    Ok(wire::UpdateDistributionListResponse { list: Some(list) })
}

/// What is to change at a list.
struct Update {
    add: Vec<String>,
    remove: Vec<String>,
    /// Absent: nothing; none: no owner any more.
    owner: Option<Option<String>>,
}

async fn apply(
    router: &Router,
    name: &MailboxName,
    change: &Update,
) -> Result<wire::DistributionList, Error> {
    let mut transaction = router.pool.begin().await?;
    let mut row = lists::lock(&mut transaction, name).await?;
    if let Some(owner) = &change.owner {
        lists::set_owner(&mut transaction, name, owner.as_deref()).await?;
        row.owner.clone_from(owner);
    }
    lists::remove_members(&mut transaction, name, &change.remove).await?;
    lists::add_members(&mut transaction, name, &change.add).await?;
    if lists::count_members(&mut transaction, name).await? > router.policy.targets {
        return Err(Error::Precondition("the list would have more members than router.expansion.targets"));
    }
    let members = lists::members(&mut *transaction, name).await?;
    transaction.commit().await?;
    Ok(shown(row, members))
}

pub(crate) async fn list(
    router: &Router,
    request: wire::ListDistributionListsRequest,
) -> Result<wire::ListDistributionListsResponse, Status> {
    let (size, limit) = field::page_size(request.page_size)?;
    let domain = super::optional_domain(&request.domain)?;
    let (after_domain, after_local) = field::after_address(&request.page_token)?;
    let mut rows = lists::list(&router.pool, &domain, (&after_domain, &after_local), limit)
        .await
        .map_err(|error| failed("lists", error))?;
    let next_page_token = field::cut_page(&mut rows, size, |row| stored_name(&row.local, &row.domain));
    let lists = rows.into_iter().map(|row| shown(row, Vec::new())).collect();
    Ok(wire::ListDistributionListsResponse { lists, next_page_token })
}

pub(crate) async fn delete(
    router: &Router,
    request: wire::DeleteDistributionListRequest,
) -> Result<wire::DeleteDistributionListResponse, Status> {
    let name = field::mailbox("address", &request.address)?;
    lists::delete(&router.pool, &name).await.map_err(|error| refused(&name, error))?;
    router.change(&Change::Mailbox(name)).await;
    Ok(wire::DeleteDistributionListResponse {})
}

fn refused(name: &MailboxName, error: Error) -> Status {
    failed(&format!("list {name}"), error)
}

fn shown(row: lists::Row, members: Vec<String>) -> wire::DistributionList {
    wire::DistributionList {
        address: stored_name(&row.local, &row.domain),
        members,
        owner: row.owner.unwrap_or_default(),
    }
}
