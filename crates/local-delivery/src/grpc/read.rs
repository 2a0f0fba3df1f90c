//! The bytes of a message, in chunks, as fast as the reader takes them.

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt as _};
use posthorn_api::error::{self, invalid};
use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::get_message_response::Part as Sent;
use posthorn_content::CHUNK_BYTES;
use sqlx::PgPool;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{BoxStream, Mailboxes};
use crate::copy::{CopyHeaders, header_end};
use crate::error::Failure;
use crate::folder_name::FolderName;
use crate::store::{self, messages::MessageRow};

impl Mailboxes {
    pub(super) async fn message(
        &self,
        request: api::GetMessageRequest,
    ) -> Result<BoxStream<api::GetMessageResponse>, Status> {
        let folder = FolderName::or_inbox(&request.folder).map_err(|e| invalid("folder", e))?;
        let part = request.part();
        if part == api::Part::Unspecified {
            return Err(invalid("part", "is missing"));
        }
        let account = self.accounts.resolve(&request.mailbox).await?;
        let row = store::messages::one(&self.pool, account.id, folder.as_str(), request.uid.into())
            .await
            .map_err(Failure::from)?
            .ok_or(Failure::NoMessage)?;
        let reader = match part {
            api::Part::Raw => Some(Reader::range(&row, request.offset, request.limit)),
            api::Part::Headers => Some(Reader::headers(&row)),
            api::Part::Summary | api::Part::Unspecified => None,
        };
        let summary = self.summaries(vec![row], false).await?.pop().map(Sent::Summary);
        let first = stream::iter(summary.map(Ok));
        let bytes = reader.map(|reader| reader.stream(self.pool.clone())).into_iter();
        let bytes = stream::iter(bytes).flatten().map(|chunk| chunk.map(Sent::Chunk));
        Ok(first
            .chain(bytes)
            .map(|part| part.map(|part| api::GetMessageResponse { part: Some(part) }))
            .boxed())
    }
}

/// What is left to read of a message.
struct Reader {
    content_id: Uuid,
    /// Headers of the copy that are yet to be sent.
    head: Bytes,
    /// The range of the content that is.
    offset: u64,
    left: u64,
    /// The last bytes sent while the end of the header section is being looked for.
    seeking: Option<BytesMut>,
}

impl Reader {
    fn range(row: &MessageRow, offset: u64, limit: u64) -> Self {
        let limit = if limit == 0 { u64::MAX } else { limit };
        let limit = limit.min((row.size as u64).saturating_sub(offset));
        let headers = CopyHeaders::kept(row.return_path.as_deref(), row.delivered_to.as_deref());
        let (head, offset, left) = headers.cut(offset, limit);
        Self { content_id: row.content_id, head, offset, left, seeking: None }
    }

    fn headers(row: &MessageRow) -> Self {
        Self { seeking: Some(BytesMut::new()), ..Self::range(row, 0, 0) }
    }

    fn stream(self, pool: PgPool) -> BoxStream<Bytes> {
        stream::try_unfold((self, pool), |(mut reader, pool)| async move {
            let chunk = reader.next(&pool).await?;
            Ok(chunk.map(|chunk| (chunk, (reader, pool))))
        })
        .boxed()
    }

    /// The next chunk; holds a connection only while it is fetched.
    async fn next(&mut self, pool: &PgPool) -> Result<Option<Bytes>, Status> {
        if !self.head.is_empty() {
            return Ok(Some(std::mem::take(&mut self.head)));
        }
        if self.left == 0 {
            return Ok(None);
        }
        // Up to the next boundary of a stored chunk, so that each is fetched once.
        let chunk = CHUNK_BYTES as u64;
        let length = (chunk - self.offset % chunk).min(self.left);
        let mut connection = pool.acquire().await.map_err(Failure::from)?;
        let id = self.content_id.into();
        let bytes = posthorn_content::read_range(&mut connection, id, self.offset, length as usize)
            .await
            .map_err(Failure::from)?;
        drop(connection);
        if bytes.len() as u64 != length {
            tracing::error!(content_id = %self.content_id, offset = self.offset, "a content has lost bytes");
            return Err(error::status(Code::DataLoss, "CONTENT_LOST", "the message has lost bytes"));
        }
        self.offset += length;
        self.left -= length;
        Ok(Some(self.up_to_the_body(bytes)))
    }

    /// Cuts the chunk in which the header section ends, if its end is what is looked for.
    fn up_to_the_body(&mut self, chunk: Bytes) -> Bytes {
        let Some(last) = &mut self.seeking else { return chunk };
        let before = last.len();
        last.extend_from_slice(&chunk);
        match header_end(last) {
            Some(end) => {
                self.left = 0;
                chunk.slice(..end.saturating_sub(before))
            }
            None => {
                // The empty line may begin in the last three bytes.
                let keep = last.len().saturating_sub(3);
                let _ = last.split_to(keep);
                chunk
            }
        }
    }
}
