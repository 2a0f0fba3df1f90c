//! Listening, and driving the sessions of those who connect.
//!
//! A [`Listener`] takes connections within the limits of a [`Gate`] and gives each a task; the task asks its
//! [`Connection`] for one [`Event`] after another. All that the protocol needs - reading, replying, time-outs, TLS,
//! saying 421 when the server goes down - happens within [`Connection::next`].

mod connection;
mod gate;
mod listener;
mod stream;

pub use connection::{Connection, Event};
pub use gate::{Full, Gate, Pass};
pub use listener::Listener;
