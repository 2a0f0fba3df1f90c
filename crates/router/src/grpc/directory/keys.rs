//! API keys.

use posthorn_api::directory::v1 as wire;
use posthorn_api::error::invalid;
use posthorn_api::key::Scope;
use time::OffsetDateTime;
use tonic::Status;
use uuid::Uuid;

use crate::cache::Change;
use crate::directory::keys::{self, New, Row};
use crate::grpc::{failed, field};
use crate::router::Router;
use crate::secret;

pub(crate) async fn create(
    router: &Router,
    request: wire::CreateKeyRequest,
) -> Result<wire::CreateKeyResponse, Status> {
    let key = field::required("key", request.key)?;
    let key_id = match key.key_id.as_str() {
        "" => Uuid::now_v7().to_string(),
        _ => return Err(invalid("key.key_id", "is given by the directory")),
    };
    let scopes = scopes(key.scopes)?;
    let new = New {
        key_id: &key_id,
        tenant_id: field::tenant("key.tenant_id", &key.tenant_id)?,
        description: field::text("key.description", &key.description, 500)?,
        scopes: &scopes,
        expires_at: key.expires_at.map(expiry).transpose()?,
    };
    let secret = secret::generate();
    let row = keys::insert(&router.pool, &new, &secret::hash(&secret))
        .await
        .map_err(|error| failed("key", error))?;
    router.change(&Change::Keys).await;
    Ok(wire::CreateKeyResponse { key: Some(row.into()), secret })
}

pub(crate) async fn list(
    router: &Router,
    request: wire::ListKeysRequest,
) -> Result<wire::ListKeysResponse, Status> {
    let (size, limit) = field::page_size(request.page_size)?;
    let after = field::after_name(&request.page_token)?;
    let mut rows = keys::list(&router.pool, after, limit).await.map_err(|error| failed("keys", error))?;
    let next_page_token = field::cut_page(&mut rows, size, |row| row.key_id.clone());
    Ok(wire::ListKeysResponse { keys: rows.into_iter().map(Into::into).collect(), next_page_token })
}

pub(crate) async fn delete(
    router: &Router,
    request: wire::DeleteKeyRequest,
) -> Result<wire::DeleteKeyResponse, Status> {
    let key_id = field::text("key_id", &request.key_id, 100)?;
    keys::delete(&router.pool, key_id).await.map_err(|error| failed(&format!("key {key_id}"), error))?;
    router.change(&Change::Keys).await;
    Ok(wire::DeleteKeyResponse {})
}

fn scopes(mut scopes: Vec<String>) -> Result<Vec<String>, Status> {
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() {
        return Err(invalid("key.scopes", "is empty"));
    }
    let known = Scope::ALL.map(Scope::name);
    match scopes.iter().find(|scope| !known.contains(&scope.as_str())) {
        Some(scope) => Err(invalid("key.scopes", format!("{scope:?} is none of {}", known.join(", ")))),
        None => Ok(scopes),
    }
}

fn expiry(at: prost_types::Timestamp) -> Result<OffsetDateTime, Status> {
    match posthorn_api::time_of(at) {
        Some(at) if at > OffsetDateTime::now_utc() => Ok(at),
        _ => Err(invalid("key.expires_at", "is not in the future")),
    }
}

impl From<Row> for wire::Key {
    fn from(row: Row) -> Self {
        Self {
            key_id: row.key_id,
            tenant_id: row.tenant_id,
            description: row.description,
            scopes: row.scopes,
            created_at: Some(posthorn_api::timestamp(row.created_at)),
            expires_at: row.expires_at.map(posthorn_api::timestamp),
        }
    }
}
