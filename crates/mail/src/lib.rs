#![doc = include_str!("../README.md")]

mod address;
mod domain;
mod envelope;
mod message_id;
mod outcome;
mod status;

pub use address::{Address, AddressError, ReversePath};
pub use domain::{Domain, DomainError, Host};
pub use envelope::{Body, Envelope, Notify, Recipient, Ret};
pub use message_id::{MessageId, MessageIdError};
pub use outcome::{Outcome, RemoteServer, Verdict};
pub use status::{EnhancedStatus, Status, StatusError, Words};
