//! The server's side of a session: RFC 5321 with PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152), SMTPUTF8
//! (6531), ENHANCEDSTATUSCODES (2034), DSN (3461), CHUNKING and BINARYMIME (3030), and STARTTLS (3207).
//!
//! [`Session`] takes bytes and says, by [`Step`], what is to be done next. Its replies gather in
//! [`Session::output`] and are to be written when it wants to read, starts TLS or closes: so all replies to a group of
//! pipelined commands leave together.

mod command;
mod content;
mod lines;
mod parameters;
mod session;
mod settings;
mod transaction;

pub use session::{Client, Session, Step};
pub use settings::Settings;
