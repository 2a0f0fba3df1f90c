//! Looking into mailboxes, as a program would.

use std::time::Duration;

use anyhow::Result;
use posthorn_api::error::is_temporary;
use posthorn_api::mailbox::v1::get_message_response::Part as Got;
use posthorn_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use posthorn_api::mailbox::v1::{GetMessageRequest, ListMessagesRequest, MessageSummary, Part};
use posthorn_testkit::wait;
use tonic::transport::Channel;

use crate::Api;

/// A message in a mailbox, read whole.
#[derive(Debug, Clone)]
pub struct Mail {
    /// What the mailbox knows of it.
    pub summary: MessageSummary,
    /// Its bytes as a mail client gets them.
    pub raw: Vec<u8>,
}

impl Api {
    /// All messages of a mailbox, in all folders.
    pub async fn list(&self, mailbox: &str) -> Result<Vec<MessageSummary>> {
        let mut client = self.mailboxes().await?;
        let mut request =
            ListMessagesRequest { mailbox: mailbox.into(), page_size: 1000, ..Default::default() };
        let mut messages = Vec::new();
        loop {
            let page = client.list_messages(request.clone()).await?.into_inner();
            messages.extend(page.messages);
            if page.next_page_token.is_empty() {
                return Ok(messages);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// One message's bytes.
    pub async fn read(&self, mailbox: &str, summary: MessageSummary) -> Result<Mail> {
        let mut client = self.mailboxes().await?;
        let raw = raw(&mut client, mailbox, &summary).await?;
        Ok(Mail { summary, raw })
    }

    /// All messages of a mailbox, and the bytes of each or why they cannot be had; fails when the mailbox is away.
    pub async fn read_all(
        &self,
        mailbox: &str,
    ) -> Result<Vec<(MessageSummary, Result<Vec<u8>, tonic::Status>)>> {
        let mut client = self.mailboxes().await?;
        let mut mails = Vec::new();
        for summary in self.list(mailbox).await? {
            let raw = raw(&mut client, mailbox, &summary).await;
            match raw {
                Err(status) if is_temporary(&status) => return Err(status.into()),
                raw => mails.push((summary, raw)),
            }
        }
        Ok(mails)
    }

    async fn mailboxes(&self) -> Result<MailboxServiceClient<Channel>> {
        let client = MailboxServiceClient::connect(self.local_delivery.clone()).await?;
        Ok(client.max_decoding_message_size(64 << 20))
    }

    /// Waits until the mailbox holds `count` messages, and reads them.
    pub async fn wait_for_mail(&self, mailbox: &str, count: usize) -> Result<Vec<Mail>> {
        self.wait_for_mail_within(mailbox, count, Duration::from_secs(30)).await
    }

    /// The same with a limit of the caller's.
    pub async fn wait_for_mail_within(
        &self,
        mailbox: &str,
        count: usize,
        limit: Duration,
    ) -> Result<Vec<Mail>> {
        let what = format!("{count} messages in the mailbox of {mailbox}");
        let found = wait::until(&what, limit, async || {
            self.list(mailbox).await.ok().filter(|messages| messages.len() >= count)
        })
        .await;
        let mut mails = Vec::with_capacity(found.len());
        for summary in found {
            mails.push(self.read(mailbox, summary).await?);
        }
        Ok(mails)
    }
}

async fn raw(
    client: &mut MailboxServiceClient<Channel>,
    mailbox: &str,
    summary: &MessageSummary,
) -> Result<Vec<u8>, tonic::Status> {
    let request = GetMessageRequest {
        mailbox: mailbox.into(),
        folder: summary.folder.clone(),
        uid: summary.uid,
        part: Part::Raw.into(),
        ..Default::default()
    };
    let mut parts = client.get_message(request).await?.into_inner();
    let mut raw = Vec::new();
    while let Some(response) = parts.message().await? {
        if let Some(Got::Chunk(chunk)) = response.part {
            raw.extend_from_slice(&chunk);
        }
    }
    Ok(raw)
}
