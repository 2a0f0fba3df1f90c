//! The server's side, whole sessions at a time.

mod cuts;
mod recipients;
mod shell;
mod transcripts;
