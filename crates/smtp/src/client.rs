//! The client's side of a session (RFC 5321 §3, §4.5.3.2, §4.5.4).
//!
//! A [`Session`] is one connection: greeting, EHLO, STARTTLS where wanted, then any number of transactions, then QUIT.
//! Whoever owns the socket asks for the next [`Step`], does it, and says how it went. What became of each recipient
//! comes out as an [`Answer`], with the server's words.
//!
//! The content itself stays with the owner of the socket, who puts it into the form that [`Step::Content`] asks for
//! ([`DotStuffer`] for DATA, as it is for BDAT), converted before by [`downgrade`] where [`Capabilities`] ask for that.

mod capabilities;
mod command;
mod downgrade;
mod ending;
mod exchange;
mod reply;
mod session;
mod stuffing;
mod timeouts;
mod transaction;

pub use capabilities::{Capabilities, Size};
pub use downgrade::{Needs, Unconvertible, downgrade, needs};
pub use ending::Ending;
pub use reply::{Reply, ReplyError, ReplyReader};
pub use session::{Session, Settings, Step};
pub use stuffing::DotStuffer;
pub use timeouts::Timeouts;
pub use transaction::{Answer, Framing, Transaction};
