//! The queue over real sockets, on a Postgres and a Redis of its own. Workers are played by the tests.

mod a_message_travels;
mod accepts;
mod asks_for_a_key;
mod carries_many;
mod common;
mod expands;
mod goes_early;
mod is_fair;
mod leases;
mod operators;
mod redis_vanishes;
mod retries_then_bounces;
