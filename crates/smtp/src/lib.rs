#![doc = include_str!("../README.md")]

pub mod client;
pub mod reply;
pub mod server;
pub mod xtext;
