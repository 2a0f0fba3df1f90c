//! `RoutingService`: what the other services ask.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use posthorn_api::error::invalid;
use posthorn_api::routing::v1 as wire;
use posthorn_api::routing::v1::routing_service_server::RoutingService;
use posthorn_mail::Address;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{failed, field};
use crate::decide::{Acceptance, Verdict};
use crate::directory::lookup;
use crate::known::{Entry, MailboxName};
use crate::mx::Server;
use crate::refusal;
use crate::router::{Resolved, Router};

/// How many recipients a Verify may have.
const RECIPIENTS: usize = 10_000;
/// How many accounts may be asked about at once.
const ACCOUNTS: usize = 10_000;

#[derive(Debug, Clone)]
pub(crate) struct Routing {
    pub(crate) router: Arc<Router>,
    /// How long what is said of a key may be kept.
    pub(crate) keys_for: Duration,
    /// How long what is said of an address may be kept by those who are told of changes.
    pub(crate) recipients_for: Duration,
    /// Ends what lasts.
    pub(crate) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl RoutingService for Routing {
    async fn verify(
        &self,
        request: Request<wire::VerifyRequest>,
    ) -> Result<Response<wire::VerifyResponse>, Status> {
        let request = request.into_inner();
        if request.recipients.len() > RECIPIENTS {
            return Err(invalid("recipients", format!("has more than {RECIPIENTS} addresses")));
        }
        let parsed: Vec<Option<Address>> = request.recipients.iter().map(|text| text.parse().ok()).collect();
        let addresses: Vec<Address> = parsed.iter().flatten().cloned().collect();
        let accepted = self.router.accept(&addresses).await.map_err(|error| failed("recipients", error))?;
        let keep_for = if self.router.cache.is_told() { self.recipients_for } else { Duration::ZERO };
        let mut accepted = accepted.into_iter();
        let results = parsed.iter().map(|address| {
            let acceptance = address.as_ref().and_then(|_| accepted.next());
            let acceptance =
                acceptance.unwrap_or_else(|| Acceptance::nowhere(Verdict::Refused(refusal::malformed())));
            verified(acceptance, keep_for)
        });
        Ok(Response::new(wire::VerifyResponse { results: results.collect() }))
    }

    async fn resolve_destination(
        &self,
        request: Request<wire::ResolveDestinationRequest>,
    ) -> Result<Response<wire::ResolveDestinationResponse>, Status> {
        use wire::resolve_destination_response::Result as Wire;
        let host = posthorn_api::parse_field("domain", &request.get_ref().domain)?;
        let resolved = self.router.destination(&host).await.map_err(|error| failed("domain", error))?;
        let result = match resolved {
            Resolved::Local => Wire::Local(wire::DomainIsLocal {}),
            Resolved::Refused(status) => Wire::Refused(status.into()),
            Resolved::Servers(destination) => Wire::Hosts(wire::Hosts {
                destination: destination.name.to_string(),
                hosts: destination.servers.into_iter().map(host_of).collect(),
            }),
        };
        Ok(Response::new(wire::ResolveDestinationResponse { result: Some(result) }))
    }

    async fn resolve_mailbox(
        &self,
        request: Request<wire::ResolveMailboxRequest>,
    ) -> Result<Response<wire::ResolveMailboxResponse>, Status> {
        use wire::resolve_mailbox_request::Mailbox;
        let mailbox = field::required("mailbox", request.into_inner().mailbox)?;
        let found = match mailbox {
            Mailbox::Address(address) => self.mailbox_by_address(&address).await?,
            Mailbox::AccountId(id) => self.mailbox_by_id(&id).await?,
        };
        Ok(Response::new(found))
    }

    async fn accounts_exist(
        &self,
        request: Request<wire::AccountsExistRequest>,
    ) -> Result<Response<wire::AccountsExistResponse>, Status> {
        let asked = request.into_inner().account_ids;
        if asked.len() > ACCOUNTS {
            return Err(invalid("account_ids", format!("has more than {ACCOUNTS} ids")));
        }
        let asked: Vec<Uuid> =
            asked.iter().map(|id| account_id("account_ids", id)).collect::<Result<_, _>>()?;
        let known = lookup::existing(&self.router.pool, &asked).await.map_err(|e| failed("accounts", e))?;
        let exist = asked.iter().map(|id| known.contains(id)).collect();
        Ok(Response::new(wire::AccountsExistResponse { exist }))
    }

    async fn verify_key(
        &self,
        request: Request<wire::VerifyKeyRequest>,
    ) -> Result<Response<wire::VerifyKeyResponse>, Status> {
        let key = self.router.key(&request.get_ref().key).await.map_err(|error| failed("key", error))?;
        let key = key.ok_or_else(posthorn_api::key::refused)?;
        let left = key.expires_at.map_or(Duration::MAX, |at| {
            Duration::try_from(at - time::OffsetDateTime::now_utc()).unwrap_or_default()
        });
        Ok(Response::new(wire::VerifyKeyResponse {
            key_id: key.key_id.clone(),
            tenant_id: key.tenant_id.clone(),
            scopes: key.scopes.clone(),
            cache_for: Some(posthorn_api::duration(left.min(self.keys_for))),
        }))
    }

    type WatchDirectoryStream = BoxStream<wire::WatchDirectoryResponse>;

    async fn watch_directory(
        &self,
        request: Request<Streaming<wire::WatchDirectoryRequest>>,
    ) -> Result<Response<Self::WatchDirectoryStream>, Status> {
        let mut generations = self.router.cache.watch();
        let watcher = self.router.watchers.enter(*generations.borrow());
        // It may have kept something before: the first is told at once.
        generations.mark_changed();
        let (confirmed, shutdown) = (request.into_inner(), self.shutdown.clone());
        let watch = (generations, confirmed, watcher);
        let told = futures::stream::try_unfold(watch, move |(mut generations, mut confirmed, watcher)| {
            let shutdown = shutdown.clone();
            async move {
                loop {
                    tokio::select! {
                        biased;
                        Ok(()) = generations.changed() => {
                            let generation = *generations.borrow_and_update();
                            let response = wire::WatchDirectoryResponse { generation };
                            return Ok(Some((response, (generations, confirmed, watcher))));
                        }
                        request = confirmed.message() => match request? {
                            Some(request) => watcher.confirm(request.generation),
                            None => return Ok(None),
                        },
                        () = shutdown.cancelled() => return Ok(None),
                    }
                }
            }
        });
        Ok(Response::new(told.boxed()))
    }
}

impl Routing {
    async fn mailbox_by_address(&self, address: &str) -> Result<wire::ResolveMailboxResponse, Status> {
        let name = field::mailbox("address", address)?;
        let found = self.router.mailbox(&name).await.map_err(|error| failed("address", error))?;
        match found.as_ref().map(|(domain, entry)| (domain, &**entry)) {
            Some((domain, Entry::Account { account_id, quota_bytes, .. })) => {
                Ok(mailbox(*account_id, &name, &domain.tenant_id, *quota_bytes))
            }
            _ => Err(failed(&format!("mailbox {name}"), crate::directory::Error::NotFound)),
        }
    }

    async fn mailbox_by_id(&self, id: &[u8]) -> Result<wire::ResolveMailboxResponse, Status> {
        let id = account_id("account_id", id)?;
        let row = lookup::account(&self.router.pool, id)
            .await
            .map_err(|error| failed(&format!("account {id}"), error))?;
        let name =
            field::domain("domain", &row.domain).map(|domain| MailboxName::new(&row.local, &domain))?;
        let quota = u64::try_from(row.quota_bytes).unwrap_or_default();
        Ok(mailbox(row.account_id, &name, &row.tenant_id, quota))
    }
}

fn account_id(field: &str, bytes: &[u8]) -> Result<Uuid, Status> {
    Uuid::from_slice(bytes).map_err(|_| invalid(field, "is no UUID of 16 bytes"))
}

fn mailbox(id: Uuid, name: &MailboxName, tenant_id: &str, quota_bytes: u64) -> wire::ResolveMailboxResponse {
    wire::ResolveMailboxResponse {
        account_id: id.as_bytes().to_vec().into(),
        address: name.to_string(),
        tenant_id: tenant_id.to_owned(),
        quota_bytes,
    }
}

fn verified(acceptance: Acceptance, keep_for: Duration) -> wire::VerifyResult {
    use wire::verify_result::Result as Wire;
    let Acceptance { tenant_id, verdict } = acceptance;
    let tenant_id = tenant_id.as_deref().unwrap_or_default().to_owned();
    let may_be_kept = !matches!(verdict, Verdict::Refused(_)) && !keep_for.is_zero();
    let cache_for = may_be_kept.then(|| posthorn_api::duration(keep_for));
    let result = match verdict {
        Verdict::Ours(target) => Wire::Local(wire::LocalRecipient {
            tenant_id: tenant_id.clone(),
            target: target.map(crate::work::target),
        }),
        Verdict::Relay => Wire::Relay(wire::RelayRecipient {}),
        Verdict::Refused(status) => Wire::Refused(status.into()),
    };
    wire::VerifyResult { result: Some(result), tenant_id, cache_for }
}

fn host_of(server: Server) -> wire::Host {
    wire::Host {
        name: server.name,
        addresses: server.addresses.iter().map(ToString::to_string).collect(),
        port: server.port.into(),
        by_route: server.by_route,
    }
}
