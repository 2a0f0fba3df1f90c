#![doc = include_str!("../README.md")]

mod blows;
mod internet;
mod letter;
mod mailbox;
mod posthorn;
mod queue;

pub use internet::Internet;
pub use letter::{headers_above, letter};
pub use mailbox::Mail;
pub use posthorn::{Options, Posthorn};
pub use queue::queued_as;
