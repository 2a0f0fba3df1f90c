//! A router that knows by the address what to say.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthorn_api::mail::v1 as mail;
use posthorn_api::routing::v1 as wire;
use posthorn_api::routing::v1::routing_service_server::RoutingService;
use posthorn_api::routing::v1::verify_result::Result as Verdict;
use posthorn_api::work::v1::route_target::Decision;
use posthorn_api::work::v1::{LocalTarget, RouteTarget};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::world::PATIENCE;

/// `unknown…@example.test` does not exist, the rest of `example.test` is local, `later@` is not known yet, all other
/// domains are others'.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlayedRouter {
    pub(crate) away: Arc<AtomicBool>,
    /// Nobody is there any more.
    pub(crate) deserted: Arc<AtomicBool>,
    changes: Arc<Changes>,
}

#[derive(Debug)]
struct Changes {
    /// `None`: they are not told.
    told: Mutex<Option<watch::Sender<u64>>>,
    /// The last that ingress has confirmed.
    confirmed: watch::Sender<u64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { told: Mutex::new(Some(watch::Sender::new(1))), confirmed: watch::Sender::new(0) }
    }
}

impl PlayedRouter {
    /// Waits until ingress has confirmed all changes.
    pub(crate) async fn confirmed(&self) {
        let told = *self.changes.told.lock().unwrap().as_ref().expect("changes are told").borrow();
        let mut confirmed = self.changes.confirmed.subscribe();
        let confirmed = confirmed.wait_for(|confirmed| *confirmed == told);
        tokio::time::timeout(PATIENCE, confirmed).await.unwrap().unwrap();
    }

    /// Tells of a change, and waits until it is confirmed.
    pub(crate) async fn change(&self) {
        let tell = |told: &watch::Sender<u64>| told.send_modify(|generation| *generation += 1);
        self.changes.told.lock().unwrap().as_ref().map(tell).expect("changes are told");
        self.confirmed().await;
    }

    /// Tells of no change any more.
    pub(crate) fn fall_silent(&self) {
        *self.changes.told.lock().unwrap() = None;
    }
}

#[tonic::async_trait]
impl RoutingService for PlayedRouter {
    async fn verify(
        &self,
        request: Request<wire::VerifyRequest>,
    ) -> Result<Response<wire::VerifyResponse>, Status> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the directory is away"));
        }
        let deserted = self.deserted.load(Ordering::SeqCst);
        let name = |recipient: &String| if deserted { "unknown@example.test" } else { recipient }.to_owned();
        let recipients = request.into_inner().recipients;
        let results = recipients.iter().map(|recipient| verdict(&name(recipient))).collect();
        Ok(Response::new(wire::VerifyResponse { results }))
    }

    async fn verify_key(
        &self,
        request: Request<wire::VerifyKeyRequest>,
    ) -> Result<Response<wire::VerifyKeyResponse>, Status> {
        let scopes = match request.into_inner().key.as_str() {
            "good" => vec!["submit".to_owned()],
            "other" => vec!["mailbox".to_owned()],
            _ => return Err(Status::unauthenticated("no such key")),
        };
        Ok(Response::new(wire::VerifyKeyResponse {
            key_id: "key-1".into(),
            tenant_id: "tenant-1".into(),
            scopes,
            cache_for: None,
        }))
    }

    async fn resolve_destination(
        &self,
        _: Request<wire::ResolveDestinationRequest>,
    ) -> Result<Response<wire::ResolveDestinationResponse>, Status> {
        Err(Status::unimplemented("ingress has no business here"))
    }

    async fn accounts_exist(
        &self,
        _: Request<wire::AccountsExistRequest>,
    ) -> Result<Response<wire::AccountsExistResponse>, Status> {
        Err(Status::unimplemented("ingress has no business here"))
    }

    type WatchDirectoryStream = BoxStream<wire::WatchDirectoryResponse>;

    async fn watch_directory(
        &self,
        request: Request<Streaming<wire::WatchDirectoryRequest>>,
    ) -> Result<Response<Self::WatchDirectoryStream>, Status> {
        let told = self.changes.told.lock().unwrap().as_ref().map(watch::Sender::subscribe);
        let told = WatchStream::new(told.ok_or_else(|| Status::unimplemented("changes are not told"))?);
        let (changes, mut requests) = (self.changes.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                changes.confirmed.send_replace(request.generation);
            }
        });
        let told = told.map(|generation| Ok(wire::WatchDirectoryResponse { generation }));
        Ok(Response::new(Box::pin(told)))
    }

    async fn resolve_mailbox(
        &self,
        _: Request<wire::ResolveMailboxRequest>,
    ) -> Result<Response<wire::ResolveMailboxResponse>, Status> {
        Err(Status::unimplemented("ingress has no business here"))
    }
}

fn verdict(recipient: &str) -> wire::VerifyResult {
    let refused = |code, enhanced: &str, text: &str| {
        Verdict::Refused(mail::Status { code, enhanced: enhanced.into(), text: text.into(), words: 0 })
    };
    let verdict = match recipient.split_once('@') {
        Some((local, "example.test")) if local.starts_with("unknown") => {
            refused(550, "5.1.1", "No such user here")
        }
        Some(("later", "example.test")) => refused(451, "4.2.1", "The mailbox is being moved"),
        // An alias is none that could be told in advance.
        Some((local, "example.test")) => {
            let target = (!local.ends_with("alias")).then(|| mailbox(recipient));
            Verdict::Local(wire::LocalRecipient { tenant_id: "t".into(), target })
        }
        Some((_, "tenant-1.test")) => refused(550, "5.1.1", "No such user here"),
        _ => Verdict::Relay(wire::RelayRecipient {}),
    };
    let tenant_id = match recipient.rsplit_once('@') {
        Some((_, "example.test")) => "t",
        Some((_, "tenant-1.test")) => "tenant-1",
        _ => "",
    };
    let is_remembered = recipient.starts_with("remembered");
    let cache_for = is_remembered.then(|| posthorn_api::duration(Duration::from_secs(3600)));
    wire::VerifyResult { result: Some(verdict), tenant_id: tenant_id.into(), cache_for }
}

/// What is decided of a recipient that is a mailbox.
pub(crate) fn mailbox(recipient: &str) -> RouteTarget {
    let local = LocalTarget { account_id: vec![7; 16].into(), ..LocalTarget::default() };
    RouteTarget {
        address: recipient.into(),
        reason: format!("account {recipient}"),
        sender: None,
        decision: Some(Decision::Local(local)),
    }
}
