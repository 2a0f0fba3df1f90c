//! Connecting to a server and transferring messages to it.

mod connection;
mod content;
mod tls;

pub use connection::{Connection, OpenError, Target};
pub use content::{Content, ContentError};
