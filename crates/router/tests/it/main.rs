//! The router as others meet it: over gRPC, with a Postgres, a DNS and a queue of the test's own.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod destinations;
mod directory;
mod queue;
mod replicas;
mod running;
mod verify;
mod work;
