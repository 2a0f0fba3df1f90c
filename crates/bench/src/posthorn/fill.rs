//! Filling the queue as fast as it takes messages: by the call that ingress makes, in full batches.

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use posthorn_api::mail::v1::{Envelope, Origin, Recipient};
use posthorn_api::spool::v1::accept_result;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_api::spool::v1::{AcceptItem, AcceptRequest, AcceptStart};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Posthorn;
use crate::letter::{SENDER, letter};
use crate::server::until;

/// Messages in a call, and calls at once.
const BATCH: u64 = 128;
const CALLS: usize = 4;

impl Posthorn {
    /// Hands in so many messages of `size` octets for an address, and waits until the router has dealt with all.
    pub(crate) async fn fill(&self, address: &str, messages: u64, size: usize) -> Result<()> {
        let content = Bytes::from(letter(0, size));
        let batches = (0..messages.div_ceil(BATCH)).map(|batch| {
            let items = BATCH.min(messages - batch * BATCH);
            let items = (0..items).map(|_| item(address, content.clone())).collect();
            let mut spool = SpoolServiceClient::new(self.queue.clone());
            async move {
                let answer = spool.accept(AcceptRequest { items }).await?.into_inner();
                let accepted = |result: Option<_>| matches!(result, Some(accept_result::Result::Accepted(_)));
                ensure!(answer.results.into_iter().all(|r| accepted(r.result)), "a message was not accepted");
                Ok(())
            }
        });
        stream::iter(batches).buffer_unordered(CALLS).try_collect::<Vec<()>>().await?;
        until("all messages to be routed", async || {
            // Counting so many takes a while.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let stats = self.stats().await?;
            let waiting =
                |stage: &str| stats.stages.iter().find(|s| s.stage == stage).map_or(0, |s| s.waiting);
            Ok(waiting("route") == 0 && waiting("remote") >= messages)
        })
        .await
    }
}

fn item(address: &str, content: Bytes) -> AcceptItem {
    let recipient = Recipient { address: address.to_owned(), ..Default::default() };
    let envelope = Envelope { sender: SENDER.to_owned(), recipients: vec![recipient], ..Default::default() };
    let start = AcceptStart {
        envelope: Some(envelope),
        origin: Some(Origin { protocol: "INTERNAL".to_owned(), ..Default::default() }),
        message_id: Bytes::copy_from_slice(Uuid::now_v7().as_bytes()),
        received_at: Some(posthorn_api::timestamp(OffsetDateTime::now_utc())),
        ..Default::default()
    };
    AcceptItem { start: Some(start), content }
}
