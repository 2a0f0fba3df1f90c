//! The whole service over real sockets; the router and the queue are played.
// Helpers of tests are tests, where a panic is the report; clippy knows it of marked modules only.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod router;
#[cfg(test)]
mod smtp;
#[cfg(test)]
mod submission;
#[cfg(test)]
mod world;
