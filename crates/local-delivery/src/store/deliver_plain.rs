//! Delivery into many folders the plain way, that of nearly all mail: one statement, in which the update of a mailbox is its
//! lock.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::column;
use crate::placement::{Arrival, Place, Placed};

/// What a batch brings to a mailbox or a folder.
#[derive(Default)]
struct Share {
    messages: i64,
    bytes: i64,
    /// How many bytes the mailbox may hold with it. Where arrivals differ, as when that was changed just now, the most.
    quota: i64,
    /// How many have come to the mailbox with the folder's last.
    last: i64,
}

/// The how-manyeth an arrival is, of those to its folder and of those to its mailbox.
struct Turn {
    in_folder: i64,
    in_mailbox: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    nr: i64,
    folder_id: i32,
    uid: i64,
    modseq: i64,
    noted: i64,
}

/// Puts arrivals into their mailboxes, in the caller's transaction. `None`, and that is to be rolled back: a mailbox or
/// folder is missing, some do not fit, or were delivered before.
///
/// Mailboxes are locked by their update, in the order of their ids unless Postgres joins otherwise: where it does, two
/// batches may wait for each other, and one is chosen as a victim. An update sees the row as it is when the lock is had; so
/// does the folder's, which changes under that lock alone. Copies are stored only where all folders were found, so that
/// little is to be rolled back.
pub(super) async fn deliver_plain(
    connection: &mut PgConnection,
    arrivals: &[&Arrival],
    at: OffsetDateTime,
) -> sqlx::Result<Option<Vec<Placed>>> {
    let (mailboxes, folders, turns) = shares(arrivals);
    let (accounts, mailboxes): (Vec<Uuid>, Vec<Share>) = mailboxes.into_iter().unzip();
    let (names, folders): (Vec<(Uuid, &str)>, Vec<Share>) = folders.into_iter().unzip();
    let mut rows: Vec<Row> = sqlx::query_as(
        "WITH account AS (
             UPDATE mailbox.account a SET used_bytes = a.used_bytes + m.bytes, messages = a.messages + m.messages,
                    highest_modseq = a.highest_modseq + m.messages
             FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) AS m (id, messages, bytes, quota)
             WHERE a.account_id = m.id AND a.used_bytes + m.bytes <= m.quota
             RETURNING a.account_id, a.highest_modseq - m.messages AS modseq),
         folder AS (
             UPDATE mailbox.folder f SET uid_next = f.uid_next + n.messages, highest_modseq = account.modseq + n.last,
                    messages = f.messages + n.messages, unseen = f.unseen + n.messages, size = f.size + n.bytes
             FROM UNNEST($5::uuid[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[])
                      AS n (id, name, messages, bytes, last)
                  JOIN account ON account.account_id = n.id
             WHERE f.account_id = n.id AND f.name = n.name
             RETURNING f.account_id, f.name, f.folder_id, f.uid_next - n.messages AS uid, account.modseq),
         arrival AS (
             SELECT nr, message_id, key, size, return_path, delivered_to, account_id, folder_id,
                    folder.uid + in_folder - 1 AS uid, folder.modseq + in_mailbox AS modseq
             FROM UNNEST($10::uuid[], $11::uuid[], $12::text[], $13::text[], $14::bigint[], $15::text[], $16::text[],
                         $17::bigint[], $18::bigint[]) WITH ORDINALITY
                      AS a (message_id, account_id, name, key, size, return_path, delivered_to, in_folder, in_mailbox, nr)
                  JOIN folder USING (account_id, name)
             WHERE (SELECT count(*) FROM folder) = $20),
         noted AS (
             INSERT INTO mailbox.delivery (message_id, account_id, recipient)
             SELECT message_id, account_id, key FROM arrival ON CONFLICT DO NOTHING RETURNING 1),
         stored AS (
             INSERT INTO mailbox.message (account_id, folder_id, uid, content_id, message_id, size, modseq,
                                          return_path, delivered_to, received_at)
             SELECT account_id, folder_id, uid, message_id, message_id, size, modseq, return_path, delivered_to, $19
             FROM arrival)
         SELECT nr, folder_id, uid, modseq, (SELECT count(*) FROM noted) AS noted FROM arrival",
    )
    .bind(accounts)
    .bind(column(&mailboxes, |m| m.messages))
    .bind(column(&mailboxes, |m| m.bytes))
    .bind(column(&mailboxes, |m| m.quota))
    .bind(column(&names, |(account, _)| *account))
    .bind(column(&names, |(_, name)| *name))
    .bind(column(&folders, |f| f.messages))
    .bind(column(&folders, |f| f.bytes))
    .bind(column(&folders, |f| f.last))
    .bind(column(arrivals, |a| a.message_id))
    .bind(column(arrivals, |a| a.account_id))
    .bind(column(arrivals, |a| a.folder.as_str()))
    .bind(column(arrivals, |a| a.recipient_key()))
    .bind(column(arrivals, |a| a.size as i64))
    .bind(column(arrivals, |a| a.return_path.as_str()))
    .bind(column(arrivals, |a| a.recipient.as_str()))
    .bind(column(&turns, |t| t.in_folder))
    .bind(column(&turns, |t| t.in_mailbox))
    .bind(at)
    .bind(folders.len() as i64)
    .fetch_all(connection)
    .await?;
    let count = arrivals.len();
    if rows.len() < count || rows.iter().any(|row| row.noted < count as i64) {
        return Ok(None);
    }
    rows.sort_unstable_by_key(|row| row.nr);
    let placed = |row: Row| Placed::At(Place { folder_id: row.folder_id, uid: row.uid, modseq: row.modseq });
    Ok(Some(rows.into_iter().map(placed).collect()))
}

type Shares<'a> = (BTreeMap<Uuid, Share>, BTreeMap<(Uuid, &'a str), Share>, Vec<Turn>);

/// What comes to each mailbox and to each folder, and in which order.
fn shares<'a>(arrivals: &[&'a Arrival]) -> Shares<'a> {
    let mut mailboxes: BTreeMap<Uuid, Share> = BTreeMap::new();
    let mut folders: BTreeMap<(Uuid, &str), Share> = BTreeMap::new();
    let turn = |arrival: &&'a Arrival| {
        let bytes = arrival.size as i64;
        let quota = if arrival.quota == 0 { i64::MAX } else { arrival.quota.min(i64::MAX as u64) as i64 };
        let mailbox = mailboxes.entry(arrival.account_id).or_default();
        mailbox.messages += 1;
        mailbox.bytes += bytes;
        mailbox.quota = mailbox.quota.max(quota);
        let folder = folders.entry((arrival.account_id, arrival.folder.as_str())).or_default();
        folder.messages += 1;
        folder.bytes += bytes;
        folder.last = mailbox.messages;
        Turn { in_folder: folder.messages, in_mailbox: mailbox.messages }
    };
    let turns = arrivals.iter().map(turn).collect();
    (mailboxes, folders, turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_run_on_by_folder_and_by_mailbox() {
        let arrival = |account, folder: &str, size, quota| Arrival {
            message_id: Uuid::from_u128(1),
            account_id: Uuid::from_u128(account),
            folder: folder.parse().unwrap(),
            recipient: "a@x".into(),
            return_path: String::new(),
            size,
            quota,
        };
        let arrivals = [
            arrival(2, "INBOX", 10, 0),
            arrival(1, "INBOX", 20, 50),
            arrival(2, "Junk", 30, 90),
            arrival(2, "INBOX", 40, 90),
        ];
        let arrivals: Vec<&Arrival> = arrivals.iter().collect();
        let (mailboxes, folders, turns) = shares(&arrivals);
        let turns: Vec<_> = turns.iter().map(|turn| (turn.in_folder, turn.in_mailbox)).collect();
        assert_eq!(turns, [(1, 1), (1, 1), (1, 2), (2, 3)]);
        let share = |share: Share| (share.messages, share.bytes, share.last, share.quota);
        let mailboxes: Vec<_> = mailboxes.into_values().map(share).collect();
        assert_eq!(mailboxes, [(1, 20, 0, 50), (3, 80, 0, i64::MAX)]);
        let folders: Vec<_> = folders.into_iter().map(|((_, name), of)| (name, share(of))).collect();
        assert_eq!(folders, [("INBOX", (1, 20, 1, 0)), ("INBOX", (2, 50, 3, 0)), ("Junk", (1, 30, 2, 0))]);
    }
}
