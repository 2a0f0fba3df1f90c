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
///
/// Until then nothing of it must last, so that no chunk waits for the disk by itself: the log that the accepting
/// transaction waits for has them in it before its own commit. [`Upload::begin`] and [`Upload::write`] must not be called
/// within a transaction: it as a whole would not wait.
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
        sqlx::query(
            "INSERT INTO content.released (content_id)
             SELECT $1 WHERE set_config('synchronous_commit', 'off', true) = 'off'",
        )
        .bind(id.uuid())
        .execute(connection)
        .await?;
        Ok(Self { id, seq: 0, size: 0, pending: BytesMut::new() })
    }

    /// The bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes, of any length; whether there are chunks to write now.
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        self.size += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        self.pending.len() >= CHUNK_BYTES
    }

    /// Writes the chunks that are complete. `RowNotFound` when nothing came for so long that the upload was collected.
    pub async fn write(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        while self.pending.len() >= CHUNK_BYTES {
            let chunk = self.pending.split_to(CHUNK_BYTES);
            self.append(connection, &chunk, false).await?;
        }
        Ok(())
    }

    /// Writes the last chunk; returns the size of the whole. In the caller's transaction, which makes it a content.
    /// `RowNotFound` when the upload has taken so long that it was collected.
    pub async fn finish(self, connection: &mut PgConnection) -> sqlx::Result<u64> {
        let id = self.id;
        let size = self.flush(connection).await?;
        if crate::unrelease(connection, id).await? { Ok(size) } else { Err(sqlx::Error::RowNotFound) }
    }

    /// Writes the last chunk, and leaves it all released: the caller calls [`crate::unrelease`] in the transaction that
    /// makes it a content.
    pub async fn flush(mut self, connection: &mut PgConnection) -> sqlx::Result<u64> {
        let rest = self.pending.split();
        if !rest.is_empty() || self.seq == 0 {
            self.append(connection, &rest, true).await?;
        }
        Ok(self.size)
    }

    /// Each chunk begins the grace anew. An upload that was collected meanwhile has no more: nobody would find them.
    /// `lasting`: the transaction's commit is to wait for the disk.
    async fn append(
        &mut self,
        connection: &mut PgConnection,
        chunk: &[u8],
        lasting: bool,
    ) -> sqlx::Result<()> {
        let done = sqlx::query(
            "WITH held AS (UPDATE content.released SET released_at = now() WHERE content_id = $1 RETURNING content_id)
             INSERT INTO content.chunk (content_id, seq, data) SELECT content_id, $2, $3 FROM held
             WHERE $4 OR set_config('synchronous_commit', 'off', true) = 'off'",
        )
        .bind(self.id.uuid())
        .bind(self.seq)
        .bind(chunk)
        .bind(lasting)
        .execute(connection)
        .await?;
        if done.rows_affected() == 0 {
            return Err(sqlx::Error::RowNotFound);
        }
        self.seq += 1;
        Ok(())
    }
}
