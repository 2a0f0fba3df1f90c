//! Nothing lost, nothing twice: what becomes of mail while one thing after another goes wrong (R1-R4, R9, R11).
//!
//! Run by `make chaos`, one test after another; each prints its seed, its blows, its table and its time.
//! `POSTHORN_CHAOS_SEED` repeats the instants of an earlier run.
#![expect(clippy::print_stdout, reason = "what was done, and what came of it, is for whoever runs it")]

mod answers_are_lost;
mod clock;
mod clock_jumps;
mod clocks_differ;
mod connections_break;
mod data_has_no_end;
mod disk;
mod disk_is_full;
mod dns_fails;
mod operator;
mod operators_meddle;
mod poison;
mod poison_spares_others;
mod postgres_fails;
mod receivers_drop;
mod redis_fails;
mod replicas_roll;
mod services_die;
mod services_stay_away;
mod slow_clients;
mod storm;
mod sweeps_double_nothing;
mod workers_sleep;
