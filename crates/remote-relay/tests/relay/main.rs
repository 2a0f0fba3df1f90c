//! The relay as a whole, over real sockets: a scripted queue and router on one side, scripted servers on the other.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a test")]

mod connections;
mod support;
mod transfers;
mod work_stream;
