//! The server's side, whole sessions at a time.

mod cuts;
mod shell;
mod transcripts;
