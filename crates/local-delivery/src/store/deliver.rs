//! Delivery: a batch of arrivals in one transaction.

use std::collections::{BTreeSet, HashSet};

use posthorn_database::Standing;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::column;
use super::deliver_here::{deliver_here, go_into_one_folder};
use super::deliver_plain::deliver_plain;
use super::lock::{create, lock, missing};
use crate::placement::{Arrival, Placed, refuse};

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
    standing
        .with(async |connection| {
            if go_into_one_folder(arrivals)
                && let Some(delivered) = deliver_here(connection, arrivals, at, start).await?
            {
                return Ok(delivered);
            }
            if let Some(placed) = deliver_together(connection, arrivals, at).await? {
                return Ok(placed.into());
            }
            let accounts: BTreeSet<Uuid> = arrivals.iter().map(|a| a.account_id).collect();
            let accounts: Vec<Uuid> = accounts.into_iter().collect();
            loop {
                match deliver_locked(connection, &accounts, arrivals, at).await? {
                    Locked::Placed(placed) => return Ok(placed.into()),
                    Locked::Missing(accounts) => create(&mut *connection, &accounts).await?,
                }
            }
        })
        .await
}

/// All that go the plain way, in a transaction of their own. `None`: nothing was done.
async fn deliver_together(
    connection: &mut PgConnection,
    arrivals: &[&Arrival],
    at: OffsetDateTime,
) -> sqlx::Result<Option<Vec<Placed>>> {
    let mut transaction = connection.begin().await?;
    let placed = deliver_plain(&mut transaction, arrivals, at).await?;
    match placed {
        Some(_) => transaction.commit().await?,
        None => transaction.rollback().await?,
    }
    Ok(placed)
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
    let repeated = repeated(&mut transaction, arrivals).await?;
    make_folders(&mut transaction, arrivals).await?;
    let mut used = locked.into_iter().map(|(id, account)| (id, account.used_bytes.max(0) as u64)).collect();
    let refused = refuse(arrivals, &repeated, &mut used);
    let fitting: Vec<&Arrival> =
        arrivals.iter().zip(&refused).filter(|(_, refused)| refused.is_none()).map(|(a, _)| *a).collect();
    // Under the lock all is as it was found.
    let placed = deliver_plain(&mut transaction, &fitting, at).await?.ok_or(sqlx::Error::RowNotFound)?;
    transaction.commit().await?;
    let mut placed = placed.into_iter();
    Ok(Locked::Placed(refused.into_iter().filter_map(|refused| refused.or_else(|| placed.next())).collect()))
}

/// Of each arrival, whether it was delivered before, also earlier in this batch.
async fn repeated(connection: &mut PgConnection, arrivals: &[&Arrival]) -> sqlx::Result<Vec<bool>> {
    let known: Vec<(Uuid, Uuid, String)> = sqlx::query_as(
        "SELECT message_id, account_id, recipient FROM mailbox.delivery
         JOIN UNNEST($1::uuid[], $2::uuid[], $3::text[]) AS a (message_id, account_id, recipient)
             USING (message_id, account_id, recipient)",
    )
    .bind(column(arrivals, |a| a.message_id))
    .bind(column(arrivals, |a| a.account_id))
    .bind(column(arrivals, |a| a.recipient_key()))
    .fetch_all(connection)
    .await?;
    let mut known: HashSet<_> = known.into_iter().collect();
    let key = |a: &Arrival| (a.message_id, a.account_id, a.recipient_key());
    Ok(arrivals.iter().map(|a| !known.insert(key(a))).collect())
}

/// Makes the folders that arrivals name and that are missing.
async fn make_folders(connection: &mut PgConnection, arrivals: &[&Arrival]) -> sqlx::Result<()> {
    let wanted: BTreeSet<(Uuid, &str)> = arrivals.iter().map(|a| (a.account_id, a.folder.as_str())).collect();
    let (accounts, names): (Vec<Uuid>, Vec<&str>) = wanted.into_iter().unzip();
    let missing: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT account_id, name FROM UNNEST($1::uuid[], $2::text[]) AS wanted (account_id, name)
         WHERE NOT EXISTS (SELECT FROM mailbox.folder f
                           WHERE f.account_id = wanted.account_id AND f.name = wanted.name)",
    )
    .bind(accounts)
    .bind(names)
    .fetch_all(&mut *connection)
    .await?;
    for (account, name) in missing {
        super::folders::insert(connection, account, &name).await?;
    }
    Ok(())
}
