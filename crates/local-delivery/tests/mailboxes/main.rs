//! The whole service against a real Postgres, between a queue and a router that do as they are told. One binary, so
//! that one Postgres serves all scenarios.

mod appends;
mod changes_messages;
mod collects;
mod delivers_and_reads;
mod delivers_once;
mod keeps_the_queues_rules;
mod makes_folders;
mod watches;
mod world;
