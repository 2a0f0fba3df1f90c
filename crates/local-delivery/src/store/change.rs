//! A change of one mailbox: a transaction under its lock, which counts what it changes.

use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::lock::{Account, begin_locked};

/// A transaction that holds a mailbox's lock. Dropped without [`Change::commit`], it has changed nothing.
#[derive(Debug)]
pub(crate) struct Change {
    transaction: Transaction<'static, Postgres>,
    account: Account,
    modseq: i64,
    messages: i64,
    bytes: i64,
}

impl Change {
    /// Waits for the lock; makes the mailbox if it is new.
    pub(crate) async fn begin(pool: &PgPool, account: Uuid) -> sqlx::Result<Self> {
        let (transaction, locked) = begin_locked(pool, &[account]).await?;
        let account = locked[&account];
        Ok(Self { transaction, account, modseq: account.highest_modseq, messages: 0, bytes: 0 })
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Whose mailbox it is.
    pub(crate) fn account(&self) -> Uuid {
        self.account.account_id
    }

    /// Bytes in the mailbox, with this change.
    pub(crate) fn used_bytes(&self) -> u64 {
        u64::try_from(self.account.used_bytes + self.bytes).unwrap_or_default()
    }

    /// The mod-sequence of the next message that changes.
    pub(crate) fn next_modseq(&mut self) -> i64 {
        self.modseq += 1;
        self.modseq
    }

    /// The highest mod-sequence given out.
    pub(crate) fn modseq(&self) -> i64 {
        self.modseq
    }

    /// Messages and bytes come (or go, when negative).
    pub(crate) fn count(&mut self, messages: i64, bytes: i64) {
        self.messages += messages;
        self.bytes += bytes;
    }

    /// Makes the change last; returns the mailbox's highest mod-sequence.
    pub(crate) async fn commit(mut self) -> sqlx::Result<i64> {
        if self.modseq != self.account.highest_modseq {
            sqlx::query(
                "UPDATE mailbox.account SET highest_modseq = $2, messages = messages + $3, used_bytes = used_bytes + $4
                 WHERE account_id = $1",
            )
            .bind(self.account.account_id)
            .bind(self.modseq)
            .bind(self.messages)
            .bind(self.bytes)
            .execute(&mut *self.transaction)
            .await?;
        }
        self.transaction.commit().await?;
        Ok(self.modseq)
    }
}
