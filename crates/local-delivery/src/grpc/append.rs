//! AppendMessage: a message comes in chunks.

use bytes::{Bytes, BytesMut};
use posthorn_api::error::invalid;
use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::append_message_request::Part;
use posthorn_api::time_of;
use posthorn_content::{CHUNK_BYTES, Upload};
use posthorn_mail::MessageId;
use sqlx::PgPool;
use time::OffsetDateTime;
use tonic::{Status, Streaming};

use super::Mailboxes;
use crate::callers::Caller;
use crate::error::Failure;
use crate::flags::Flags;
use crate::folder_name::FolderName;
use crate::placement::{Placed, fits};
use crate::store::append::append;
use crate::store::change::Change;
use crate::store::folders;

/// The start, parsed.
struct Start {
    folder: FolderName,
    flags: Flags,
    received_at: Option<OffsetDateTime>,
}

impl Mailboxes {
    pub(super) async fn append(
        &self,
        caller: Caller,
        parts: Streaming<api::AppendMessageRequest>,
    ) -> Result<api::AppendMessageResponse, Status> {
        let appended = self.append_parts(caller, parts);
        let appended = tokio::time::timeout(self.config.append_timeout, appended).await;
        appended.unwrap_or_else(|_| Err(Failure::TooSlow.into()))
    }

    async fn append_parts(
        &self,
        caller: Caller,
        mut parts: Streaming<api::AppendMessageRequest>,
    ) -> Result<api::AppendMessageResponse, Status> {
        let Some(Part::Start(start)) = parts.message().await?.and_then(|part| part.part) else {
            return Err(invalid("start", "must come first"));
        };
        let mailbox = start.mailbox.clone();
        self.admit(&caller, &mailbox).await?;
        let start = parse(start)?;
        let account = self.accounts.resolve(&mailbox).await?;
        // Refused before its bytes are taken, where that is known.
        self.must_exist(account.id, &start.folder).await?;
        let id = MessageId::generate();
        let mut incoming = Incoming { id, pool: self.pool.clone(), small: BytesMut::new(), upload: None };
        while let Some(part) = parts.message().await? {
            let Some(Part::Chunk(chunk)) = part.part else { return Err(invalid("part", "is no chunk")) };
            if incoming.size() + chunk.len() as u64 > self.config.max_append.as_u64() {
                return Err(Failure::TooLarge.into());
            }
            incoming.push(chunk).await.map_err(Failure::from)?;
        }
        if incoming.size() == 0 {
            return Err(invalid("chunk", "the message is empty"));
        }
        let mut change = self.begin(&mailbox).await?;
        let folder = folders::find(&mut change, &start.folder).await?;
        match fits(change.used_bytes(), incoming.size(), account.quota) {
            Ok(()) => {}
            Err(Placed::TooLarge) => return Err(Failure::TooLarge.into()),
            Err(_) => return Err(Failure::Full.into()),
        }
        let size = incoming.finish(&mut change).await?;
        let row = append(&mut change, &folder, id, size, &start.flags, start.received_at).await;
        let row = row.map_err(Failure::from)?;
        self.commit(change).await?;
        let message = self.summaries(vec![row], false).await?.pop();
        Ok(api::AppendMessageResponse { message })
    }
}

fn parse(start: api::AppendStart) -> Result<Start, Status> {
    let received_at = match start.received_at {
        None => None,
        Some(at) => Some(time_of(at).ok_or_else(|| invalid("start.received_at", "is no point in time"))?),
    };
    Ok(Start {
        folder: FolderName::or_inbox(&start.folder).map_err(|e| invalid("start.folder", e))?,
        flags: Flags::parse(&start.flags).map_err(|e| invalid("start.flags", e))?,
        received_at,
    })
}

/// A content on its way in: kept here while it is small, then uploaded as it comes.
struct Incoming {
    id: MessageId,
    pool: PgPool,
    small: BytesMut,
    upload: Option<Upload>,
}

impl Incoming {
    fn size(&self) -> u64 {
        self.upload.as_ref().map_or(self.small.len() as u64, Upload::size)
    }

    async fn push(&mut self, chunk: Bytes) -> sqlx::Result<()> {
        if self.upload.is_none() && self.small.len() + chunk.len() <= CHUNK_BYTES {
            self.small.extend_from_slice(&chunk);
            return Ok(());
        }
        let mut connection = self.pool.acquire().await?;
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let mut upload = Upload::begin(&mut connection, self.id).await?;
                upload.add(&self.small.split());
                none.insert(upload)
            }
        };
        upload.add(&chunk);
        upload.write(&mut connection).await
    }

    /// Makes it a content, within the transaction that refers to it; returns its size.
    async fn finish(self, change: &mut Change) -> Result<u64, Failure> {
        let size = self.size();
        match self.upload {
            None => posthorn_content::insert(change.connection(), &[(self.id, self.small.freeze())]).await?,
            Some(upload) => {
                upload.finish(change.connection()).await.map_err(|error| match error {
                    sqlx::Error::RowNotFound => Failure::TooSlow,
                    error => Failure::Store(error),
                })?;
            }
        }
        Ok(size)
    }
}
