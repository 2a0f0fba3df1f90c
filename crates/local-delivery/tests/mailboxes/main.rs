//! The whole service against a real Postgres, between a queue and a router that do as they are told. One binary, so
//! that one Postgres serves all scenarios.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report, also in what tests share")]

mod appends;
mod asks_for_a_key;
mod changes_messages;
mod collects;
mod delivers_and_reads;
mod delivers_early;
mod delivers_once;
mod keeps_the_queues_rules;
mod makes_folders;
mod measures;
mod removes_the_mailboxes_of_the_gone;
mod watches;
mod world;
