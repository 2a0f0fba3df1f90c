//! Writing contents.

use bytes::{Bytes, BytesMut};
use posthorn_mail::MessageId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::CHUNK_BYTES;

/// Contents as columns of `content.chunk`, for UNNEST: for who inserts them in a statement of his own, with what else
/// belongs to a message.
#[derive(Debug, Default)]
pub struct Chunks<'a> {
    /// `content_id`, uuid.
    pub ids: Vec<Uuid>,
    /// `seq`, integer.
    pub seqs: Vec<i32>,
    /// `data`, bytea.
    pub data: Vec<&'a [u8]>,
}

impl<'a> Chunks<'a> {
    /// Cuts contents into chunks.
    pub fn of(contents: impl IntoIterator<Item = (MessageId, &'a Bytes)>) -> Self {
        let mut chunks = Self::default();
        for (id, content) in contents {
            // An empty content is one empty chunk: it exists.
            let chunks_of = content.chunks(CHUNK_BYTES).chain(content.is_empty().then_some(&[][..]));
            for (seq, chunk) in (0..).zip(chunks_of) {
                chunks.ids.push(id.uuid());
                chunks.seqs.push(seq);
                chunks.data.push(chunk);
            }
        }
        chunks
    }
}

/// Inserts many contents in one statement. An id that exists already is an error: content is written once.
pub async fn insert(connection: &mut PgConnection, contents: &[(MessageId, Bytes)]) -> sqlx::Result<()> {
    if contents.is_empty() {
        return Ok(());
    }
    let chunks = Chunks::of(contents.iter().map(|(id, content)| (*id, content)));
    sqlx::query(
        "INSERT INTO content.chunk (content_id, seq, data)
         SELECT * FROM UNNEST($1::uuid[], $2::int[], $3::bytea[])",
    )
    .bind(chunks.ids)
    .bind(chunks.seqs)
    .bind(chunks.data)
    .execute(connection)
    .await?;
    Ok(())
}

/// One large content on its way in, cut into chunks.
///
/// It counts as released until [`Upload::finish`], whose caller makes it part of the transaction that accepts the
/// message; an upload that is dropped is collected later.
#[derive(Debug)]
pub struct Upload {
    id: MessageId,
    seq: i32,
    size: u64,
    pending: BytesMut,
}

impl Upload {
    /// Begins a content. An id that is being uploaded or collected already is an error.
    pub async fn begin(connection: &mut PgConnection, id: MessageId) -> sqlx::Result<Self> {
        sqlx::query("INSERT INTO content.released (content_id) VALUES ($1)")
            .bind(id.uuid())
            .execute(connection)
            .await?;
        Ok(Self { id, seq: 0, size: 0, pending: BytesMut::new() })
    }

    /// The bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes, of any length; writes the chunks that they complete. `RowNotFound` when nothing came for so
    /// long that it was collected.
    pub async fn push(&mut self, connection: &mut PgConnection, bytes: &[u8]) -> sqlx::Result<()> {
        self.size += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        while self.pending.len() >= CHUNK_BYTES {
            let chunk = self.pending.split_to(CHUNK_BYTES);
            self.append(connection, &chunk).await?;
        }
        Ok(())
    }

    /// Writes what is left; returns the size of the whole. In the caller's transaction, which makes it a content.
    /// `RowNotFound` when the upload has taken so long that it was collected.
    pub async fn finish(self, connection: &mut PgConnection) -> sqlx::Result<u64> {
        let id = self.id;
        let size = self.flush(connection).await?;
        if crate::unrelease(connection, id).await? { Ok(size) } else { Err(sqlx::Error::RowNotFound) }
    }

    /// Writes what is left, and leaves it released: the caller calls [`crate::unrelease`] in the transaction that
    /// makes it a content.
    pub async fn flush(mut self, connection: &mut PgConnection) -> sqlx::Result<u64> {
        let rest = self.pending.split();
        if !rest.is_empty() || self.seq == 0 {
            self.append(connection, &rest).await?;
        }
        Ok(self.size)
    }

    /// Each chunk begins the grace anew. An upload that was collected meanwhile has no more: nobody would find them.
    async fn append(&mut self, connection: &mut PgConnection, chunk: &[u8]) -> sqlx::Result<()> {
        let done = sqlx::query(
            "WITH held AS (UPDATE content.released SET released_at = now() WHERE content_id = $1 RETURNING content_id)
             INSERT INTO content.chunk (content_id, seq, data) SELECT content_id, $2, $3 FROM held",
        )
        .bind(self.id.uuid())
        .bind(self.seq)
        .bind(chunk)
        .execute(connection)
        .await?;
        if done.rows_affected() == 0 {
            return Err(sqlx::Error::RowNotFound);
        }
        self.seq += 1;
        Ok(())
    }
}
