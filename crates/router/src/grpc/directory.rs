//! `DirectoryService`: which call goes where. What a call does is in the module of its subject.

mod accounts;
mod aliases;
mod domains;
mod explain;
mod keys;
mod lists;
mod routes;
mod tenants;

use std::sync::Arc;

use posthorn_api::directory::v1 as wire;
use posthorn_api::directory::v1::directory_service_server::DirectoryService;
use tonic::{Request, Response, Status};

use crate::callers::Callers;
use crate::grpc::field;
use crate::known::MailboxName;
use crate::router::Router;

type Answer<T> = Result<Response<T>, Status>;

#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) router: Arc<Router>,
    pub(crate) callers: Callers,
}

impl Directory {
    /// The request, if its caller may make it.
    async fn allow<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.callers.allow(&self.router, &request).await?;
        Ok(request.into_inner())
    }
}

#[tonic::async_trait]
impl DirectoryService for Directory {
    async fn create_tenant(
        &self,
        request: Request<wire::CreateTenantRequest>,
    ) -> Answer<wire::CreateTenantResponse> {
        tenants::create(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn list_tenants(
        &self,
        request: Request<wire::ListTenantsRequest>,
    ) -> Answer<wire::ListTenantsResponse> {
        tenants::list(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn delete_tenant(
        &self,
        request: Request<wire::DeleteTenantRequest>,
    ) -> Answer<wire::DeleteTenantResponse> {
        tenants::delete(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn create_domain(
        &self,
        request: Request<wire::CreateDomainRequest>,
    ) -> Answer<wire::CreateDomainResponse> {
        domains::create(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn get_domain(&self, request: Request<wire::GetDomainRequest>) -> Answer<wire::GetDomainResponse> {
        domains::get(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn update_domain(
        &self,
        request: Request<wire::UpdateDomainRequest>,
    ) -> Answer<wire::UpdateDomainResponse> {
        domains::update(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn list_domains(
        &self,
        request: Request<wire::ListDomainsRequest>,
    ) -> Answer<wire::ListDomainsResponse> {
        domains::list(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn delete_domain(
        &self,
        request: Request<wire::DeleteDomainRequest>,
    ) -> Answer<wire::DeleteDomainResponse> {
        domains::delete(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn create_account(
        &self,
        request: Request<wire::CreateAccountRequest>,
    ) -> Answer<wire::CreateAccountResponse> {
        accounts::create(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn get_account(
        &self,
        request: Request<wire::GetAccountRequest>,
    ) -> Answer<wire::GetAccountResponse> {
        accounts::get(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn update_account(
        &self,
        request: Request<wire::UpdateAccountRequest>,
    ) -> Answer<wire::UpdateAccountResponse> {
        accounts::update(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn list_accounts(
        &self,
        request: Request<wire::ListAccountsRequest>,
    ) -> Answer<wire::ListAccountsResponse> {
        accounts::list(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn delete_account(
        &self,
        request: Request<wire::DeleteAccountRequest>,
    ) -> Answer<wire::DeleteAccountResponse> {
        accounts::delete(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn create_alias(
        &self,
        request: Request<wire::CreateAliasRequest>,
    ) -> Answer<wire::CreateAliasResponse> {
        aliases::create(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn list_aliases(
        &self,
        request: Request<wire::ListAliasesRequest>,
    ) -> Answer<wire::ListAliasesResponse> {
        aliases::list(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn delete_alias(
        &self,
        request: Request<wire::DeleteAliasRequest>,
    ) -> Answer<wire::DeleteAliasResponse> {
        aliases::delete(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn create_distribution_list(
        &self,
        request: Request<wire::CreateDistributionListRequest>,
    ) -> Answer<wire::CreateDistributionListResponse> {
        lists::create(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn get_distribution_list(
        &self,
        request: Request<wire::GetDistributionListRequest>,
    ) -> Answer<wire::GetDistributionListResponse> {
        lists::get(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn update_distribution_list(
        &self,
        request: Request<wire::UpdateDistributionListRequest>,
    ) -> Answer<wire::UpdateDistributionListResponse> {
        lists::update(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn list_distribution_lists(
        &self,
        request: Request<wire::ListDistributionListsRequest>,
    ) -> Answer<wire::ListDistributionListsResponse> {
        lists::list(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn delete_distribution_list(
        &self,
        request: Request<wire::DeleteDistributionListRequest>,
    ) -> Answer<wire::DeleteDistributionListResponse> {
        lists::delete(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn create_route(
        &self,
        request: Request<wire::CreateRouteRequest>,
    ) -> Answer<wire::CreateRouteResponse> {
        routes::create(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn list_routes(
        &self,
        request: Request<wire::ListRoutesRequest>,
    ) -> Answer<wire::ListRoutesResponse> {
        routes::list(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn delete_route(
        &self,
        request: Request<wire::DeleteRouteRequest>,
    ) -> Answer<wire::DeleteRouteResponse> {
        routes::delete(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn create_key(&self, request: Request<wire::CreateKeyRequest>) -> Answer<wire::CreateKeyResponse> {
        keys::create(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn list_keys(&self, request: Request<wire::ListKeysRequest>) -> Answer<wire::ListKeysResponse> {
        keys::list(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn delete_key(&self, request: Request<wire::DeleteKeyRequest>) -> Answer<wire::DeleteKeyResponse> {
        keys::delete(&self.router, self.allow(request).await?).await.map(Response::new)
    }

    async fn explain(&self, request: Request<wire::ExplainRequest>) -> Answer<wire::ExplainResponse> {
        explain::explain(&self.router, self.allow(request).await?).await.map(Response::new)
    }
}

/// A domain to list by; empty: all.
fn optional_domain(text: &str) -> Result<String, Status> {
    if text.is_empty() { Ok(String::new()) } else { Ok(field::domain("domain", text)?.to_string()) }
}

/// An address of ours as it is shown, from its stored parts.
fn stored_name(local: &str, domain: &str) -> String {
    match domain.parse() {
        Ok(domain) => MailboxName::new(local, &domain).to_string(),
        Err(_) => format!("{local}@{domain}"),
    }
}
