#![doc = include_str!("../README.md")]

pub mod smtp_client;
pub mod stores;
pub mod wait;
