//! Contents against a real Postgres.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use posthorn_content::{CHUNK_BYTES, Upload};
use posthorn_mail::MessageId;
use sqlx::{Connection as _, PgPool};

async fn store() -> PgPool {
    let url = posthorn_testkit::stores::database().await;
    posthorn_content::migrate(&url).await.expect("the schema can be made");
    let url = posthorn_testkit::stores::as_role(&url, "posthorn_queue").await;
    PgPool::connect(&url).await.expect("the role can connect")
}

/// Bytes of which no two stretches are alike.
fn bytes(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[tokio::test]
async fn many_are_written_and_read_at_once() {
    let pool = store().await;
    let mut connection = pool.acquire().await.unwrap();
    let contents: Vec<_> = [0, 1, 4096, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 1]
        .map(|length| (MessageId::generate(), bytes(length)))
        .into();
    posthorn_content::insert(&mut connection, &contents).await.unwrap();

    let mut ids: Vec<_> = contents.iter().map(|(id, _)| *id).collect();
    ids.push(MessageId::generate());
    let read = posthorn_content::read_many(&mut connection, &ids).await.unwrap();
    assert_eq!(read.len(), contents.len());
    for (id, content) in &contents {
        assert_eq!(&read[id], content);
        let streamed: Vec<Bytes> = posthorn_content::read(pool.clone(), *id).try_collect().await.unwrap();
        assert_eq!(&streamed.concat()[..], &content[..]);
    }
    let heads = posthorn_content::read_prefixes(&mut connection, &ids, CHUNK_BYTES + 7).await.unwrap();
    for (id, content) in &contents {
        assert_eq!(heads[id], content.slice(..content.len().min(CHUNK_BYTES + 7)));
    }
}

#[tokio::test]
async fn an_older_version_leaves_a_newer_schema_as_it_is() {
    let url = posthorn_testkit::stores::database().await;
    posthorn_content::migrate(&url).await.expect("the schema can be made");
    let owner = PgPool::connect(&url).await.unwrap();
    sqlx::query(
        "INSERT INTO content.migration (version, description, success, checksum, execution_time)
         VALUES (9000, 'of a newer version', true, '', 0)",
    )
    .execute(&owner)
    .await
    .unwrap();
    posthorn_content::migrate(&url).await.expect("going back is no mistake");
}

#[tokio::test]
async fn ranges_cross_chunks() {
    let pool = store().await;
    let mut connection = pool.acquire().await.unwrap();
    let (id, content) = (MessageId::generate(), bytes(2 * CHUNK_BYTES + 100));
    posthorn_content::insert(&mut connection, &[(id, content.clone())]).await.unwrap();
    let chunk = CHUNK_BYTES as u64;
    for (offset, length) in [
        (0, 0),
        (0, 1),
        (0, CHUNK_BYTES),
        (chunk - 1, 2),
        (chunk, CHUNK_BYTES),
        (5, 2 * CHUNK_BYTES),
        (2 * chunk + 99, 50),
        (2 * chunk + 100, 50),
        (u64::MAX, usize::MAX),
        (3, usize::MAX),
    ] {
        let read = posthorn_content::read_range(&mut connection, id, offset, length).await.unwrap();
        let from = content.len().min(usize::try_from(offset).unwrap());
        let to = content.len().min(from.saturating_add(length));
        assert!(read == content.slice(from..to), "{offset} {length}");
    }
}

#[tokio::test]
async fn an_upload_is_released_until_it_is_finished() {
    let pool = store().await;
    let mut connection = pool.acquire().await.unwrap();
    let (id, content) = (MessageId::generate(), bytes(2 * CHUNK_BYTES + 5));
    let mut upload = Upload::begin(&mut connection, id).await.unwrap();
    for piece in content.chunks(100_003) {
        if upload.add(piece) {
            upload.write(&mut connection).await.unwrap();
        }
    }
    let released = posthorn_content::released_before(&mut connection, Duration::ZERO, 10).await.unwrap();
    assert_eq!(released.iter().map(|r| r.id).collect::<Vec<_>>(), [id]);

    // What makes it a content is on the disk when that is said.
    let mut transaction = connection.begin().await.unwrap();
    assert_eq!(upload.finish(&mut transaction).await.unwrap(), content.len() as u64);
    let waits: String =
        sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(waits, "on");
    transaction.commit().await.unwrap();
    let none = posthorn_content::released_before(&mut connection, Duration::ZERO, 10).await.unwrap();
    assert_eq!(none, []);
    assert!(posthorn_content::read_whole(&mut connection, id).await.unwrap() == Some(content));
}

#[tokio::test]
async fn what_is_deleted_is_gone_from_both_tables() {
    let pool = store().await;
    let mut connection = pool.acquire().await.unwrap();
    let id = MessageId::generate();
    posthorn_content::insert(&mut connection, &[(id, bytes(10))]).await.unwrap();
    posthorn_content::release(&mut connection, &[id, id]).await.unwrap();
    posthorn_content::release(&mut connection, &[id]).await.unwrap();
    let early = posthorn_content::released_before(&mut connection, Duration::from_secs(3600), 10).await;
    assert_eq!(early.unwrap(), []);
    posthorn_content::delete(&mut connection, &[id]).await.unwrap();
    assert_eq!(posthorn_content::read_whole(&mut connection, id).await.unwrap(), None);
    assert_eq!(posthorn_content::released_before(&mut connection, Duration::ZERO, 10).await.unwrap(), []);
}

#[tokio::test]
async fn an_upload_that_was_collected_leaves_nothing_behind() {
    let pool = store().await;
    let mut connection = pool.acquire().await.unwrap();
    let id = MessageId::generate();
    let mut upload = Upload::begin(&mut connection, id).await.unwrap();
    assert!(upload.add(&bytes(CHUNK_BYTES)));
    upload.write(&mut connection).await.unwrap();
    posthorn_content::delete(&mut connection, &[id]).await.unwrap();
    assert!(upload.add(&bytes(CHUNK_BYTES)));
    let refused = upload.write(&mut connection).await;
    assert!(matches!(refused, Err(sqlx::Error::RowNotFound)), "{refused:?}");
    assert_eq!(posthorn_content::read_whole(&mut connection, id).await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_that_goes_on_is_not_collected() {
    let pool = store().await;
    let mut connection = pool.acquire().await.unwrap();
    let id = MessageId::generate();
    let mut upload = Upload::begin(&mut connection, id).await.unwrap();
    let began = posthorn_content::released_before(&mut connection, Duration::ZERO, 1).await.unwrap();
    assert!(upload.add(&bytes(CHUNK_BYTES)));
    upload.write(&mut connection).await.unwrap();
    let now = posthorn_content::released_before(&mut connection, Duration::ZERO, 1).await.unwrap();
    assert!(now[0].at > began[0].at);
}
