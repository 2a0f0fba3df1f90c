//! Delivery: a batch of arrivals in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use posthorn_database::Standing;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::column;
use super::deliver_here::deliver_here;
use super::lock::{Account, create, lock, missing};
use crate::placement::{Arrival, Folder, Mailbox, Place, Placed, place};

/// What came of arrivals, of each.
pub(crate) struct Delivered {
    pub(crate) placed: Vec<Placed>,
    /// How the content of one that came alone begins, if that was asked for and could be had on the way.
    pub(crate) start: Option<Vec<u8>>,
}

impl From<Vec<Placed>> for Delivered {
    fn from(placed: Vec<Placed>) -> Self {
        Self { placed, start: None }
    }
}

/// Puts `arrivals` into their mailboxes, all in one transaction, and says of each what came of it. An arrival that was
/// delivered before (same message, mailbox and recipient), also earlier in this batch, changes nothing (R4). `at` is when
/// they arrive; `start`, how much of the content is wanted of one that comes alone.
pub(crate) async fn deliver(
    standing: &Standing,
    arrivals: &[&Arrival],
    at: OffsetDateTime,
    start: Option<usize>,
) -> sqlx::Result<Delivered> {
    let accounts: Vec<Uuid> =
        arrivals.iter().map(|a| a.account_id).collect::<BTreeSet<_>>().into_iter().collect();
    standing
        .with(async |connection| {
            if let Some(delivered) = deliver_here(connection, arrivals, at, start).await? {
                return Ok(delivered);
            }
            if let Some(placed) = deliver_plain(connection, arrivals, at).await? {
                return Ok(placed.into());
            }
            loop {
                match deliver_locked(connection, &accounts, arrivals, at).await? {
                    Locked::Placed(placed) => return Ok(placed.into()),
                    Locked::Missing(accounts) => create(&mut *connection, &accounts).await?,
                }
            }
        })
        .await
}

/// The plain way, of nearly all mail, with the fewest turns: every mailbox and folder is there, all fit, and nothing comes
/// again. `None`: something is not so, and nothing was done.
async fn deliver_plain(
    connection: &mut PgConnection,
    arrivals: &[&Arrival],
    at: OffsetDateTime,
) -> sqlx::Result<Option<Vec<Placed>>> {
    let wanted = wanted(arrivals);
    let mut transaction = connection.begin().await?;
    let (found, mut mailboxes) = lock_with_folders(&mut transaction, &wanted).await?;
    if found == wanted.len() {
        let placed = place(arrivals, &vec![true; arrivals.len()], &mut mailboxes);
        let all_fit = placed.iter().all(|p| matches!(p, Placed::At(_)));
        if all_fit && insert(&mut transaction, arrivals, &placed, at, true).await? == arrivals.len() {
            transaction.commit().await?;
            return Ok(Some(placed));
        }
    }
    transaction.rollback().await?;
    Ok(None)
}

/// The folders that arrivals name.
fn wanted<'a>(arrivals: &[&'a Arrival]) -> BTreeSet<(Uuid, &'a str)> {
    arrivals.iter().map(|a| (a.account_id, a.folder.as_str())).collect()
}

#[derive(sqlx::FromRow)]
struct LockedRow {
    used_bytes: i64,
    highest_modseq: i64,
    #[sqlx(flatten)]
    folder: FolderRow,
}

/// Locks mailboxes, and of their folders those that are wanted; says how many of these there are. Locked rows are read as
/// they are when the lock is had.
async fn lock_with_folders(
    connection: &mut PgConnection,
    wanted: &BTreeSet<(Uuid, &str)>,
) -> sqlx::Result<(usize, HashMap<Uuid, Mailbox>)> {
    let (accounts, names): (Vec<Uuid>, Vec<&str>) = wanted.iter().copied().unzip();
    let rows: Vec<LockedRow> = sqlx::query_as(
        "SELECT account_id, used_bytes, a.highest_modseq, name, folder_id, uid_next
         FROM UNNEST($1::uuid[], $2::text[]) AS wanted (account_id, name)
         JOIN mailbox.account a USING (account_id) JOIN mailbox.folder f USING (account_id, name)
         ORDER BY account_id, name FOR NO KEY UPDATE OF a, f",
    )
    .bind(accounts)
    .bind(names)
    .fetch_all(connection)
    .await?;
    let found = rows.len();
    let mut mailboxes: HashMap<Uuid, Mailbox> = HashMap::with_capacity(found);
    for LockedRow { used_bytes, highest_modseq, folder } in rows {
        let mailbox = mailboxes.entry(folder.account_id).or_insert_with(|| Mailbox {
            used_bytes: used_bytes.max(0) as u64,
            highest_modseq,
            folders: HashMap::new(),
        });
        mailbox.folders.insert(folder.name, Folder { id: folder.folder_id, uid_next: folder.uid_next });
    }
    Ok((found, mailboxes))
}

enum Locked {
    Placed(Vec<Placed>),
    /// Nothing was done: these mailboxes are to be made first.
    Missing(Vec<Uuid>),
}

async fn deliver_locked(
    connection: &mut PgConnection,
    accounts: &[Uuid],
    arrivals: &[&Arrival],
    at: OffsetDateTime,
) -> sqlx::Result<Locked> {
    let mut transaction = connection.begin().await?;
    let locked = lock(&mut transaction, accounts).await?;
    let missing = missing(&locked, accounts);
    if !missing.is_empty() {
        transaction.rollback().await?;
        return Ok(Locked::Missing(missing));
    }
    let fresh = note_deliveries(&mut transaction, arrivals).await?;
    let mut mailboxes = read_mailboxes(&mut transaction, arrivals, &locked).await?;
    let placed = place(arrivals, &fresh, &mut mailboxes);
    if placed.iter().any(|p| matches!(p, Placed::At(_))) {
        insert(&mut transaction, arrivals, &placed, at, false).await?;
    }
    forget_refused(&mut transaction, arrivals, &placed).await?;
    transaction.commit().await?;
    Ok(Locked::Placed(placed))
}

/// Writes down who gets what; true for those that had not got it.
async fn note_deliveries(connection: &mut PgConnection, arrivals: &[&Arrival]) -> sqlx::Result<Vec<bool>> {
    let fresh: Vec<(Uuid, Uuid, String)> = sqlx::query_as(
        "INSERT INTO mailbox.delivery (message_id, account_id, recipient)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[]) ON CONFLICT DO NOTHING
         RETURNING message_id, account_id, recipient",
    )
    .bind(column(arrivals, |a| a.message_id))
    .bind(column(arrivals, |a| a.account_id))
    .bind(column(arrivals, |a| a.recipient_key()))
    .fetch_all(connection)
    .await?;
    let mut fresh: BTreeSet<_> = fresh.into_iter().collect();
    // Of two of the same in one batch the first is the fresh one.
    Ok(arrivals.iter().map(|a| fresh.remove(&(a.message_id, a.account_id, a.recipient_key()))).collect())
}

/// What refused arrivals have written down is taken back, so that they may come again.
async fn forget_refused(
    connection: &mut PgConnection,
    arrivals: &[&Arrival],
    placed: &[Placed],
) -> sqlx::Result<()> {
    let refused = arrivals.iter().zip(placed).filter(|(_, p)| matches!(p, Placed::Full | Placed::TooLarge));
    let refused: Vec<&Arrival> = refused.map(|(a, _)| *a).collect();
    if refused.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM mailbox.delivery d USING UNNEST($1::uuid[], $2::uuid[], $3::text[]) AS r (m, a, recipient)
         WHERE d.message_id = r.m AND d.account_id = r.a AND d.recipient = r.recipient",
    )
    .bind(column(&refused, |a| a.message_id))
    .bind(column(&refused, |a| a.account_id))
    .bind(column(&refused, |a| a.recipient_key()))
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct FolderRow {
    account_id: Uuid,
    name: String,
    folder_id: i32,
    uid_next: i64,
}

/// Reads the folders that the arrivals name, and makes those that are missing.
async fn read_mailboxes(
    connection: &mut PgConnection,
    arrivals: &[&Arrival],
    locked: &HashMap<Uuid, Account>,
) -> sqlx::Result<HashMap<Uuid, Mailbox>> {
    let (accounts, names): (Vec<Uuid>, Vec<&str>) = wanted(arrivals).into_iter().unzip();
    // The account's counters are computed from its row as it was when the statement began: the lock keeps it so.
    let rows: Vec<FolderRow> = sqlx::query_as(
        "SELECT account_id, name, folder_id, uid_next FROM mailbox.folder
         JOIN UNNEST($1::uuid[], $2::text[]) AS wanted (account_id, name) USING (account_id, name)",
    )
    .bind(&accounts)
    .bind(&names)
    .fetch_all(&mut *connection)
    .await?;
    let mailbox = |a: &Account| Mailbox {
        used_bytes: a.used_bytes.max(0) as u64,
        highest_modseq: a.highest_modseq,
        folders: HashMap::new(),
    };
    let mut mailboxes: HashMap<Uuid, Mailbox> = locked.iter().map(|(id, a)| (*id, mailbox(a))).collect();
    let missing = accounts.len() - rows.len();
    for row in rows {
        let folder = Folder { id: row.folder_id, uid_next: row.uid_next };
        mailboxes.entry(row.account_id).or_default().folders.insert(row.name, folder);
    }
    if missing > 0 {
        for (account, name) in accounts.iter().zip(names) {
            let folders = &mut mailboxes.entry(*account).or_default().folders;
            if !folders.contains_key(name) {
                let folder = super::folders::insert(connection, *account, name).await?;
                folders.insert(name.to_owned(), Folder { id: folder.folder_id, uid_next: folder.uid_next });
            }
        }
    }
    Ok(mailboxes)
}

/// What a batch adds to a folder.
#[derive(Default)]
struct Added {
    messages: i64,
    bytes: i64,
    uid: i64,
    modseq: i64,
}

/// Inserts the rows of those that were placed, and counts them: each folder and account once. `note`: it writes down who
/// gets what, too, and returns for how many that is news.
async fn insert(
    connection: &mut PgConnection,
    arrivals: &[&Arrival],
    placed: &[Placed],
    at: OffsetDateTime,
    note: bool,
) -> sqlx::Result<usize> {
    let stored: Vec<(&Arrival, Place)> = arrivals
        .iter()
        .zip(placed)
        .filter_map(|(arrival, placed)| match placed {
            Placed::At(place) => Some((*arrival, *place)),
            _ => None,
        })
        .collect();
    let mut folders: BTreeMap<(Uuid, i32), Added> = BTreeMap::new();
    for (arrival, place) in &stored {
        let added = folders.entry((arrival.account_id, place.folder_id)).or_default();
        added.messages += 1;
        added.bytes += arrival.size as i64;
        added.uid = added.uid.max(place.uid);
        added.modseq = added.modseq.max(place.modseq);
    }
    let counted: Vec<(&(Uuid, i32), &Added)> = folders.iter().collect();
    let noted: i64 = sqlx::query_scalar(
        "WITH noted AS (
             INSERT INTO mailbox.delivery (message_id, account_id, recipient)
             SELECT m, a, r FROM UNNEST($4::uuid[], $1::uuid[], $15::text[]) AS arrival (m, a, r)
             WHERE r IS NOT NULL
             ON CONFLICT DO NOTHING RETURNING 1),
         stored AS (
             INSERT INTO mailbox.message (account_id, folder_id, uid, content_id, message_id, size, modseq,
                                          return_path, delivered_to, received_at)
             SELECT a, f, u, m, m, s, n, r, d, $16
             FROM UNNEST($1::uuid[], $2::int[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[],
                         $7::text[], $8::text[]) AS arrival (a, f, u, m, s, n, r, d)),
         added AS (
             SELECT * FROM UNNEST($9::uuid[], $10::int[], $11::bigint[], $12::bigint[], $13::bigint[],
                                  $14::bigint[]) AS added (a, f, messages, bytes, uid, modseq)),
         folders AS (
             UPDATE mailbox.folder SET uid_next = added.uid + 1, highest_modseq = added.modseq,
                    messages = folder.messages + added.messages, unseen = unseen + added.messages,
                    size = size + added.bytes
             FROM added WHERE account_id = a AND folder_id = f),
         accounts AS (
             UPDATE mailbox.account SET used_bytes = used_bytes + added.bytes,
                    messages = account.messages + added.messages, highest_modseq = added.modseq
             FROM (SELECT a, sum(messages)::bigint AS messages, sum(bytes)::bigint AS bytes, max(modseq) AS modseq
                   FROM added GROUP BY a) AS added
             WHERE account_id = a)
         SELECT count(*) FROM noted",
    )
    .bind(column(&stored, |(a, _)| a.account_id))
    .bind(column(&stored, |(_, p)| p.folder_id))
    .bind(column(&stored, |(_, p)| p.uid))
    .bind(column(&stored, |(a, _)| a.message_id))
    .bind(column(&stored, |(a, _)| a.size as i64))
    .bind(column(&stored, |(_, p)| p.modseq))
    .bind(column(&stored, |(a, _)| a.return_path.as_str()))
    .bind(column(&stored, |(a, _)| a.recipient.as_str()))
    .bind(column(&counted, |((account, _), _)| *account))
    .bind(column(&counted, |((_, folder), _)| *folder))
    .bind(column(&counted, |(_, added)| added.messages))
    .bind(column(&counted, |(_, added)| added.bytes))
    .bind(column(&counted, |(_, added)| added.uid))
    .bind(column(&counted, |(_, added)| added.modseq))
    .bind(if note { column(&stored, |(a, _)| a.recipient_key()) } else { Vec::new() })
    .bind(at)
    .fetch_one(connection)
    .await?;
    Ok(noted as usize)
}
