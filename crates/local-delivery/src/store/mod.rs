//! The mailboxes in Postgres: one file per subject, one function per statement or transaction.

pub(crate) mod append;
pub(crate) mod change;
pub(crate) mod changes;
pub(crate) mod collect;
mod deliver;
mod deliver_early;
mod deliver_here;
mod deliver_plain;
pub(crate) mod expunge;
pub(crate) mod flag;
pub(crate) mod folders;
pub(crate) mod gone;
mod lock;
pub(crate) mod messages;
mod pool;
pub(crate) mod transfer;

pub(crate) use deliver::deliver;
pub(crate) use deliver_early::deliver_early;
pub(crate) use lock::{create, modseqs};
pub use pool::migrate;
pub(crate) use pool::{Kind, Ways, answers, connect, connect_to_hear, connect_to_tell, kind};

/// One column of the rows, for UNNEST.
fn column<'a, R, T>(rows: &'a [R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}
