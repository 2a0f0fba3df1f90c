//! `MailboxService`: decodes a call, calls the store, encodes the answer. No decision.

mod append;
mod change;
mod folders;
mod messages;
mod read;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::mailbox_service_server::MailboxService;
use posthorn_database::Standing;
use sqlx::PgPool;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::accounts::{Accounts, no_such_mailbox};
use crate::callers::{Caller, Callers};
use crate::config;
use crate::notify::Changed;
use crate::watch::Watched;

/// The Mailbox API over the store.
#[derive(Debug, Clone)]
pub(crate) struct Mailboxes {
    pub(crate) pool: PgPool,
    pub(crate) reading: Arc<Standing>,
    pub(crate) callers: Callers,
    pub(crate) accounts: Accounts,
    pub(crate) watched: Watched,
    pub(crate) changed: Changed,
    pub(crate) config: config::Mailbox,
    pub(crate) shutdown: tokio_util::sync::CancellationToken,
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Mailboxes {
    /// The request, if its caller may do to the mailbox what it asks for.
    async fn admitted<T>(&self, request: Request<T>, mailbox: impl Fn(&T) -> &str) -> Result<T, Status> {
        let caller = self.callers.of(&request).await?;
        let request = request.into_inner();
        self.admit(&caller, mailbox(&request)).await?;
        Ok(request)
    }

    /// A key opens the mailboxes of its tenant.
    async fn admit(&self, caller: &Caller, mailbox: &str) -> Result<(), Status> {
        match caller {
            Caller::Trusted => Ok(()),
            Caller::Tenant { tenant, .. } if self.accounts.resolve(mailbox).await?.tenant == *tenant => {
                Ok(())
            }
            Caller::Tenant { .. } => Err(no_such_mailbox()),
        }
    }

    /// Refuses a caller who was admitted and would not be any more; nobody is refused because the router is away.
    async fn readmit(&self, caller: &Caller, mailbox: &str) -> Result<(), Status> {
        let readmitted = async {
            self.callers.recheck(caller).await?;
            self.admit(caller, mailbox).await
        };
        match readmitted.await {
            Err(status) if status.code() == Code::Unavailable => Ok(()),
            known => known,
        }
    }
}

#[tonic::async_trait]
impl MailboxService for Mailboxes {
    type GetMessageStream = BoxStream<api::GetMessageResponse>;
    type WatchStream = BoxStream<api::WatchResponse>;

    async fn list_folders(
        &self,
        request: Request<api::ListFoldersRequest>,
    ) -> Result<Response<api::ListFoldersResponse>, Status> {
        self.folders(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn create_folder(
        &self,
        request: Request<api::CreateFolderRequest>,
    ) -> Result<Response<api::CreateFolderResponse>, Status> {
        self.create(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn rename_folder(
        &self,
        request: Request<api::RenameFolderRequest>,
    ) -> Result<Response<api::RenameFolderResponse>, Status> {
        self.rename(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn delete_folder(
        &self,
        request: Request<api::DeleteFolderRequest>,
    ) -> Result<Response<api::DeleteFolderResponse>, Status> {
        self.remove(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn list_messages(
        &self,
        request: Request<api::ListMessagesRequest>,
    ) -> Result<Response<api::ListMessagesResponse>, Status> {
        self.messages(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn get_message(
        &self,
        request: Request<api::GetMessageRequest>,
    ) -> Result<Response<Self::GetMessageStream>, Status> {
        self.message(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.callers.of(&request).await?;
        let request = request.into_inner();
        self.admit(&caller, &request.mailbox).await?;
        self.watch_changes(caller, request).await.map(Response::new)
    }

    async fn append_message(
        &self,
        request: Request<Streaming<api::AppendMessageRequest>>,
    ) -> Result<Response<api::AppendMessageResponse>, Status> {
        let caller = self.callers.of(&request).await?;
        self.append(caller, request.into_inner()).await.map(Response::new)
    }

    async fn set_flags(
        &self,
        request: Request<api::SetFlagsRequest>,
    ) -> Result<Response<api::SetFlagsResponse>, Status> {
        self.set_message_flags(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn copy_messages(
        &self,
        request: Request<api::CopyMessagesRequest>,
    ) -> Result<Response<api::CopyMessagesResponse>, Status> {
        self.copy(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn move_messages(
        &self,
        request: Request<api::MoveMessagesRequest>,
    ) -> Result<Response<api::MoveMessagesResponse>, Status> {
        self.transfer(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn delete_messages(
        &self,
        request: Request<api::DeleteMessagesRequest>,
    ) -> Result<Response<api::DeleteMessagesResponse>, Status> {
        self.delete(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }

    async fn expunge_messages(
        &self,
        request: Request<api::ExpungeMessagesRequest>,
    ) -> Result<Response<api::ExpungeMessagesResponse>, Status> {
        self.expunge(self.admitted(request, |r| &r.mailbox).await?).await.map(Response::new)
    }
}
