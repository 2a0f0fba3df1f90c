#![doc = include_str!("../README.md")]

mod letter;
mod mailbox;
mod posthorn;
mod queue;

pub use letter::{headers_above, letter};
pub use mailbox::Mail;
pub use posthorn::{Options, Posthorn};
pub use queue::queued_as;
