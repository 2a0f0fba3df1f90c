//! Tenants.

use posthorn_api::directory::v1 as wire;
use tonic::Status;

use crate::directory::tenants;
use crate::grpc::{failed, field};
use crate::router::Router;

pub(crate) async fn create(
    router: &Router,
    request: wire::CreateTenantRequest,
) -> Result<wire::CreateTenantResponse, Status> {
    let tenant = field::required("tenant", request.tenant)?;
    let id = field::tenant_id("tenant.tenant_id", &tenant.tenant_id)?;
    let display_name = field::text("tenant.display_name", &tenant.display_name, 200)?;
    tenants::insert(&router.pool, id, display_name)
        .await
        .map_err(|error| failed(&format!("tenant {id}"), error))?;
    Ok(wire::CreateTenantResponse { tenant: Some(tenant) })
}

pub(crate) async fn list(
    router: &Router,
    request: wire::ListTenantsRequest,
) -> Result<wire::ListTenantsResponse, Status> {
    let (size, limit) = field::page_size(request.page_size)?;
    let after = field::after_name(&request.page_token)?;
    let mut rows =
        tenants::list(&router.pool, after, limit).await.map_err(|error| failed("tenants", error))?;
    let next_page_token = field::cut_page(&mut rows, size, |row| row.tenant_id.clone());
    let tenant =
        |row: tenants::Row| wire::Tenant { tenant_id: row.tenant_id, display_name: row.display_name };
    Ok(wire::ListTenantsResponse { tenants: rows.into_iter().map(tenant).collect(), next_page_token })
}

pub(crate) async fn delete(
    router: &Router,
    request: wire::DeleteTenantRequest,
) -> Result<wire::DeleteTenantResponse, Status> {
    let id = field::tenant_id("tenant_id", &request.tenant_id)?;
    if id == "default" {
        let always = crate::directory::Error::Precondition("this tenant always exists");
        return Err(failed("tenant default", always));
    }
    tenants::delete(&router.pool, id).await.map_err(|error| failed(&format!("tenant {id}"), error))?;
    Ok(wire::DeleteTenantResponse {})
}
