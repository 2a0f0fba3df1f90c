#![doc = include_str!("../README.md")]

mod child;
mod postgres;
mod redis;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

pub use postgres::{Durability, Postgres};
pub use redis::Redis;

/// Why a private store did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error("{program} was not found: install it (on Debian: apt-get install {package})")]
    NotInstalled {
        /// What was looked for.
        program: &'static str,
        /// Where Debian has it.
        package: &'static str,
    },
    /// The program ended before it was ready, or did not get ready in time.
    #[error("{program} did not start: {reason} (its log: {log})")]
    NotStarted {
        /// Which one.
        program: &'static str,
        /// What was seen.
        reason: String,
        /// What it said itself is here.
        log: PathBuf,
    },
    /// A file, a process or a port could not be had.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Error::io("looking for a free port"))?;
    Ok(listener.local_addr().map_err(Error::io("looking for a free port"))?.port())
}

/// Whether a server can have a Unix socket at `path`, and a URL name it as it stands: the system takes 107 bytes.
fn is_plain_socket(path: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    path.is_absolute() && path.to_str().is_some_and(|text| text.len() <= 107 && text.chars().all(plain))
}
