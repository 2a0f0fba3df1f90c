//! The server's side over real sockets.
// Marked as a test, where a panic is the report: clippy knows it of marked modules only.

#[cfg(test)]
mod sessions;
