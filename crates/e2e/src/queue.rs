//! Looking into the queue, as an operator's program would.

use std::time::Duration;

use anyhow::{Context as _, Result};
use posthorn_api::queue::v1::queue_service_client::QueueServiceClient;
use posthorn_api::queue::v1::{ListMessagesRequest, StatsRequest, StatsResponse};
use posthorn_api::trace::v1::trace_service_client::TraceServiceClient;
use posthorn_api::trace::v1::{Event, EventKind, TraceMessageRequest, TraceMessageResponse};
use posthorn_testkit::smtp_client::{Reply, submit};
use posthorn_testkit::wait;
use tokio::time::{Instant, sleep};

use crate::Api;

impl Api {
    /// What happened to a message so far.
    pub async fn trace(&self, message_id: &str) -> Result<TraceMessageResponse> {
        let mut client = TraceServiceClient::connect(self.queue.clone()).await?;
        let request = TraceMessageRequest { message_id: message_id.into() };
        Ok(client.trace_message(request).await?.into_inner())
    }

    /// Waits until something of this kind has happened to a message; the first such event.
    pub async fn wait_for_event(&self, message_id: &str, kind: EventKind) -> Event {
        wait::until(&format!("{} of {message_id}", kind.as_str_name()), PATIENCE, async || {
            let trace = self.trace(message_id).await.ok()?;
            trace.events.into_iter().find(|event| event.kind() == kind)
        })
        .await
    }

    /// Waits until all recipients of a message have an end; all that happened to it.
    pub async fn wait_for_end(&self, message_id: &str) -> Vec<Event> {
        wait::until(&format!("the end of {message_id}"), PATIENCE, async || {
            let trace = self.trace(message_id).await.ok()?;
            let ended = trace.events.iter().any(|event| event.kind() == EventKind::Ended);
            (ended && trace.pending == 0).then_some(trace.events)
        })
        .await
    }

    /// Hands a message in that must be accepted; its id.
    pub async fn send(&self, from: &str, to: &[&str], content: &[u8]) -> Result<String> {
        queued_as(&submit(self.smtp, from, to, content).await?)
    }

    /// What waits, in numbers.
    pub async fn stats(&self) -> Result<StatsResponse> {
        let mut client = QueueServiceClient::connect(self.queue.clone()).await?;
        Ok(client.stats(StatsRequest::default()).await?.into_inner())
    }

    /// Waits until nothing is owed any more; else panics, saying what happened to some of what is left.
    pub async fn wait_until_empty(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.stats().await.is_ok_and(|stats| stats.messages == 0) {
            if Instant::now() > deadline {
                let left = self.left().await;
                panic!("the queue is not empty after {limit:?}:\n{}", left.unwrap_or_else(|e| e.to_string()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn left(&self) -> Result<String> {
        let mut client = QueueServiceClient::connect(self.queue.clone()).await?;
        let request = ListMessagesRequest { page_size: 5, ..Default::default() };
        let mut left = format!("{:#?}", self.stats().await?);
        for message in client.list_messages(request).await?.into_inner().messages {
            let trace = self.trace(&message.message_id).await?;
            left += &format!("\n{message:#?}\n{trace:#?}");
        }
        Ok(left)
    }
}

/// No single thing in these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(45);

/// The id of the message that a reply to the final dot says was taken: `250 2.0.0 Ok: queued as ID`.
pub fn queued_as(reply: &Reply) -> Result<String> {
    let id = reply.text.split_once("queued as ").map(|(_, id)| id.trim().to_owned());
    id.filter(|_| reply.code == 250).with_context(|| format!("not queued: {reply:?}"))
}
