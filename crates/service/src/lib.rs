#![doc = include_str!("../README.md")]

mod calls;
mod client;
pub mod config;
mod error;
mod process;
mod server;
pub mod telemetry;
pub mod trace;

pub use client::{Channel, connect};
pub use error::Error;
pub use process::{Need, Process, Readiness, wait_for};
pub use server::{Grpc, Listen};
