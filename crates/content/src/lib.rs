#![doc = include_str!("../README.md")]

mod read;
mod release;
mod write;

pub use read::{read, read_many, read_prefix, read_prefixes, read_range, read_whole};
pub use release::{Released, delete, keep, lock, lock_released, release, released_before, unrelease};
pub use write::{Chunks, Upload, insert};

/// The size of every chunk but a content's last, in bytes.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Brings the schema `content` up to date; as the owner of the database. Safe when several run at once.
pub async fn migrate(url: &str) -> Result<(), sqlx::migrate::MigrateError> {
    posthorn_database::migrate(url, "content", sqlx::migrate!()).await
}
