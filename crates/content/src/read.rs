//! Reading contents.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream};
use posthorn_mail::MessageId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::CHUNK_BYTES;

/// Streams a content chunk by chunk; an unknown id is an empty stream. A connection is held only while a chunk is
/// fetched, so that a slow reader holds none.
pub fn read(pool: PgPool, id: MessageId) -> impl Stream<Item = sqlx::Result<Bytes>> + Send {
    stream::try_unfold((pool, 0_i32), move |(pool, seq)| async move {
        let chunk: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT data FROM content.chunk WHERE content_id = $1 AND seq = $2")
                .bind(id.uuid())
                .bind(seq)
                .fetch_optional(&pool)
                .await?;
        Ok(chunk.map(|data| (Bytes::from(data), (pool, seq + 1))))
    })
}

/// A whole content; `None` when there is none. The caller knows from the size beside its reference that it fits.
pub async fn read_whole(connection: &mut PgConnection, id: MessageId) -> sqlx::Result<Option<Bytes>> {
    Ok(read_many(connection, &[id]).await?.remove(&id))
}

/// Many contents in one statement; unknown ids are left out. For small ones.
pub async fn read_many(
    connection: &mut PgConnection,
    ids: &[MessageId],
) -> sqlx::Result<HashMap<MessageId, Bytes>> {
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT content_id, data FROM content.chunk WHERE content_id = ANY($1) ORDER BY content_id, seq",
    )
    .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(assemble(rows))
}

/// At most `length` bytes from `offset` on; shorter, or empty, where the content ends before.
pub async fn read_range(
    connection: &mut PgConnection,
    id: MessageId,
    offset: u64,
    length: usize,
) -> sqlx::Result<Bytes> {
    let end = offset.saturating_add(length as u64);
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT content_id,
                substring(data FROM greatest($2 - seq::bigint * $4, 0)::int + 1
                               FOR least($3 - seq::bigint * $4, $4)::int - greatest($2 - seq::bigint * $4, 0)::int)
         FROM content.chunk WHERE content_id = $1 AND seq >= $2 / $4 AND seq < ($3 + $4 - 1) / $4
         ORDER BY seq",
    )
    .bind(id.uuid())
    .bind(clamp(offset))
    .bind(clamp(end))
    .bind(CHUNK_BYTES as i64)
    .fetch_all(connection)
    .await?;
    Ok(assemble(rows).remove(&id).unwrap_or_default())
}

/// At most the first `length` bytes; `None` when there is no such content.
pub async fn read_prefix(
    connection: &mut PgConnection,
    id: MessageId,
    length: usize,
) -> sqlx::Result<Option<Bytes>> {
    Ok(read_prefixes(connection, &[id], length).await?.remove(&id))
}

/// At most the first `length` bytes of each of many contents, in one statement; unknown ids are left out.
pub async fn read_prefixes(
    connection: &mut PgConnection,
    ids: &[MessageId],
    length: usize,
) -> sqlx::Result<HashMap<MessageId, Bytes>> {
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT content_id, substring(data FROM 1 FOR least($2 - seq::bigint * $3, $3)::int)
         FROM content.chunk WHERE content_id = ANY($1) AND seq < ($2 + $3 - 1) / $3 ORDER BY content_id, seq",
    )
    .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .bind(clamp(length as u64))
    .bind(CHUNK_BYTES as i64)
    .fetch_all(connection)
    .await?;
    Ok(assemble(rows))
}

/// No content reaches 2^48 bytes; a larger number means "to the end" and must not overflow in the statement.
fn clamp(bytes: u64) -> i64 {
    bytes.min(1 << 48) as i64
}

/// Puts the chunks of each content, which come in order, together; a single chunk is not copied.
fn assemble(rows: Vec<(Uuid, Vec<u8>)>) -> HashMap<MessageId, Bytes> {
    let mut contents: HashMap<MessageId, Bytes> = HashMap::with_capacity(rows.len());
    let mut rows = rows.into_iter().peekable();
    while let Some((id, first)) = rows.next() {
        let content = if rows.peek().is_some_and(|(next, _)| *next == id) {
            let mut whole = BytesMut::from(&first[..]);
            while let Some((_, chunk)) = rows.next_if(|(next, _)| *next == id) {
                whole.extend_from_slice(&chunk);
            }
            whole.freeze()
        } else {
            Bytes::from(first)
        };
        contents.insert(id.into(), content);
    }
    contents
}
