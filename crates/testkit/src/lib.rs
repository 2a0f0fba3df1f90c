#![doc = include_str!("../README.md")]

pub mod dns;
pub mod proxy;
pub mod smtp_client;
pub mod smtp_server;
pub mod stores;
pub mod wait;
