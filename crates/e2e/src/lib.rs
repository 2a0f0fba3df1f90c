#![doc = include_str!("../README.md")]

mod mailbox;
mod posthorn;

pub use mailbox::Mail;
pub use posthorn::{Options, Posthorn};
