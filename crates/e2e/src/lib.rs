#![doc = include_str!("../README.md")]

pub mod account;
mod api;
mod blows;
pub mod fleet;
mod internet;
pub mod leftovers;
mod letter;
pub mod load;
mod mailbox;
mod posthorn;
mod queue;

pub use api::Api;
pub use internet::Internet;
pub use letter::{headers_above, letter};
pub use mailbox::Mail;
pub use posthorn::{Options, Posthorn};
pub use queue::queued_as;
