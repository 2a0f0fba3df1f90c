//! Why a service ends other than by being told to.

use std::fmt::Display;
use std::net::SocketAddr;

/// Why a service could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings are wrong; one line each.
    #[error("the configuration is wrong:\n{0}")]
    Config(String),
    /// A port could not be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address of the setting.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another service's address is no URL.
    #[error("{url} is no address of a service: {reason}")]
    Address {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else without which the service cannot go on; not what comes back by itself.
    #[error("{0}")]
    Fatal(String),
}

impl Error {
    /// A reason to end, from whatever says it.
    pub fn fatal(reason: impl Display) -> Self {
        Self::Fatal(reason.to_string())
    }
}
