#![doc = include_str!("../README.md")]

pub mod stores;
pub mod wait;
