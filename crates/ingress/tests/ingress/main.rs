//! The whole service over real sockets; the router and the queue are played.

mod admission;
mod handover;
mod limits;
mod queue;
mod router;
mod smtp;
mod world;
