//! The router as others meet it: over gRPC, with a Postgres, a DNS and a queue of the test's own.

mod directory;
mod destinations;
mod replicas;
mod running;
mod verify;
mod work;
