//! Delivery into one folder of one mailbox: one statement, and so one turn, for what is alone on an idle system, and for
//! what comes to one mailbox faster than it is written.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::column;
use super::deliver::Delivered;
use crate::placement::{Arrival, Place, Placed};

#[derive(sqlx::FromRow)]
struct First {
    folder_id: i32,
    uid: i64,
    modseq: i64,
    start: Option<Vec<u8>>,
}

/// Whether one folder of one mailbox is where all go, under one quota.
pub(super) fn go_into_one_folder(arrivals: &[&Arrival]) -> bool {
    arrivals.windows(2).all(|two| {
        let (one, next) = (two[0], two[1]);
        (one.account_id, &one.folder, one.quota) == (next.account_id, &next.folder, next.quota)
    })
}

/// Puts arrivals that [`go_into_one_folder`] there. `None`, and nothing was done, where that is not plain: the mailbox or
/// the folder is missing, they do not fit, or some were delivered before. `start`: of one alone, so many bytes of its
/// content are read with it.
///
/// The account's row is locked by its update, as by all who change a mailbox; where it does not qualify nothing else
/// happens. What the statement could not see when it began - a delivery of the same, a folder that went - breaks a
/// constraint, and it as a whole.
pub(super) async fn deliver_here(
    connection: &mut PgConnection,
    arrivals: &[&Arrival],
    at: OffsetDateTime,
    start: Option<usize>,
) -> sqlx::Result<Option<Delivered>> {
    let [first, others @ ..] = arrivals else { return Ok(None) };
    let bytes: u64 = arrivals.iter().map(|arrival| arrival.size).sum();
    let done: sqlx::Result<Option<First>> = sqlx::query_as(
        "WITH arrival AS (
             SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[])
                 WITH ORDINALITY AS arrival (message_id, key, size, return_path, delivered_to, nr)),
         account AS (
             UPDATE mailbox.account SET used_bytes = used_bytes + $8, messages = messages + $9,
                    highest_modseq = highest_modseq + $9
             WHERE account_id = $6 AND ($10 = 0 OR used_bytes + $8 <= $10)
               AND EXISTS (SELECT FROM mailbox.folder WHERE account_id = $6 AND name = $7)
               AND NOT EXISTS (SELECT FROM arrival a JOIN mailbox.delivery d
                               ON d.message_id = a.message_id AND d.account_id = $6 AND d.recipient = a.key)
             RETURNING highest_modseq - $9 AS modseq),
         folder AS (
             UPDATE mailbox.folder f SET uid_next = uid_next + $9, highest_modseq = account.modseq + $9,
                    messages = f.messages + $9, unseen = unseen + $9, size = size + $8
             FROM account WHERE f.account_id = $6 AND f.name = $7
             RETURNING folder_id, uid_next - $9 AS uid, modseq),
         noted AS (
             INSERT INTO mailbox.delivery (message_id, account_id, recipient)
             SELECT message_id, $6, key FROM arrival, account),
         stored AS (
             INSERT INTO mailbox.message (account_id, folder_id, uid, content_id, message_id, size, modseq,
                                          return_path, delivered_to, received_at)
             SELECT $6, folder_id, uid + nr - 1, message_id, message_id, size, account.modseq + nr, return_path,
                    delivered_to, $11
             FROM arrival, account LEFT JOIN folder ON true)
         SELECT folder_id, uid, modseq + 1 AS modseq,
                CASE WHEN $12 > 0 THEN (SELECT substring(data FROM 1 FOR $12) FROM content.chunk
                                        WHERE content_id = ($1::uuid[])[1] AND seq = 0) END AS start
         FROM folder",
    )
    .bind(column(arrivals, |a| a.message_id))
    .bind(column(arrivals, |a| a.recipient_key()))
    .bind(column(arrivals, |a| a.size as i64))
    .bind(column(arrivals, |a| a.return_path.as_str()))
    .bind(column(arrivals, |a| a.recipient.as_str()))
    .bind(first.account_id)
    .bind(first.folder.as_str())
    .bind(bytes as i64)
    .bind(arrivals.len() as i64)
    .bind(first.quota as i64)
    .bind(at)
    .bind(start.filter(|_| others.is_empty()).map(|bytes| bytes as i32))
    .fetch_optional(connection)
    .await;
    match done {
        Ok(done) => Ok(done.map(|first| first.delivered(arrivals.len()))),
        Err(sqlx::Error::Database(error)) if is_constraint(&*error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl First {
    /// The arrivals stand one behind the other.
    fn delivered(self, count: usize) -> Delivered {
        let Self { folder_id, uid, modseq, start } = self;
        let place = |n| Placed::At(Place { folder_id, uid: uid + n, modseq: modseq + n });
        Delivered { placed: (0..count as i64).map(place).collect(), start }
    }
}

fn is_constraint(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.is_unique_violation() || matches!(error.kind(), sqlx::error::ErrorKind::NotNullViolation)
}
