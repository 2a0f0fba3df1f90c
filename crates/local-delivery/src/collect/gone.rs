//! Removes the mailboxes of accounts that are gone.
//!
//! The directory is asked about every mailbox, page by page. Of an account that it does not know the mailbox notes since
//! when, and of one that it knows again that all is well; a grace later, and when the directory says so once more, the
//! mailbox is removed. An answer that does not come, or not for all, removes and notes nothing.

use posthorn_api::routing::v1::AccountsExistRequest;
use posthorn_api::routing::v1::routing_service_client::RoutingServiceClient;
use posthorn_service::{Channel, within};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Broken, OTHERS};
use crate::config::Collect;
use crate::store::gone::{self as store, Removed};

/// Mailboxes that the directory is asked about at once.
const PAGE: u32 = 1_000;

/// Who removes them.
pub(super) struct Gone {
    pub(super) router: RoutingServiceClient<Channel>,
    pub(super) pool: PgPool,
    pub(super) config: Collect,
}

impl Gone {
    /// Looks at all mailboxes once.
    pub(super) async fn round(&self) -> Result<(), Broken> {
        let mut after = Uuid::nil();
        loop {
            let page = store::mailboxes(&self.pool, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = *last;
            self.look_at(&page).await?;
        }
    }

    async fn look_at(&self, page: &[Uuid]) -> Result<(), Broken> {
        let exist = self.exist(page).await?;
        let side =
            |there: bool| page.iter().zip(&exist).filter(move |(_, e)| **e == there).map(|(id, _)| *id);
        let (there, gone): (Vec<Uuid>, Vec<Uuid>) = (side(true).collect(), side(false).collect());
        let back = store::note_there(&self.pool, &there).await?;
        if back > 0 {
            tracing::info!(mailboxes = back, "the directory knows the accounts of mailboxes again");
        }
        if gone.is_empty() {
            return Ok(());
        }
        let news = store::note_gone(&self.pool, &gone).await?;
        if news > 0 {
            let grace = self.config.accounts_grace;
            tracing::info!(
                mailboxes = news,
                ?grace,
                "the directory does not know the accounts of mailboxes: they are removed after a grace"
            );
        }
        for account in store::gone_for(&self.pool, &gone, self.config.accounts_grace).await? {
            self.remove(account).await?;
        }
        Ok(())
    }

    /// One a mailbox, in order.
    async fn exist(&self, page: &[Uuid]) -> Result<Vec<bool>, Broken> {
        let account_ids = page.iter().map(|id| id.as_bytes().to_vec().into()).collect();
        let mut router = self.router.clone();
        let answer = within(OTHERS, router.accounts_exist(AccountsExistRequest { account_ids })).await;
        let exist = answer.map_err(Broken::Router)?.into_inner().exist;
        if exist.len() == page.len() { Ok(exist) } else { Err(Broken::Partial) }
    }

    async fn remove(&self, account: Uuid) -> Result<(), Broken> {
        let (grace, step) = (self.config.accounts_grace, self.config.batch);
        loop {
            match store::remove(&self.pool, account, grace, step).await? {
                Removed::Some => {}
                Removed::Left => return Ok(()),
                Removed::All => {
                    metrics::counter!("posthorn_local_delivery_mailboxes_removed_total").increment(1);
                    tracing::info!(account_id = %account, "a mailbox is removed: its account is gone");
                    return Ok(());
                }
            }
        }
    }
}
