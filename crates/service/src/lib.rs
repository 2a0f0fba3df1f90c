#![doc = include_str!("../README.md")]

mod batch;
mod calls;
mod client;
pub mod config;
mod error;
mod networks;
mod process;
mod server;
pub mod setting;
pub mod telemetry;
pub mod trace;

pub use batch::gather;
pub use client::{Channel, Replicas, connect, connect_among, connect_to, replicas, within};
pub use error::Error;
pub use networks::Networks;
pub use process::{Need, Process, Readiness, wait_for};
pub use server::{Grpc, Listen};

/// A service that runs. Boxed: the code of a future is generated where it is first polled or boxed, which is to be the
/// service's own crate and not, all five together, the binary.
pub type Running = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;
