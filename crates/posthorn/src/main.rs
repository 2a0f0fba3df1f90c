#![doc = include_str!("../README.md")]

mod cli;
mod ctl;
mod dev;
mod forward;
mod migrate;
mod serve;
mod services;
mod settings;

use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::Parser as _;

/// Messages are many small allocations, made in one thread and freed in another; on musl it matters even more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads of the runtime where TOKIO_WORKER_THREADS does not say: one core of a small machine is left to the kernel and
/// the stores. Threads that fight for cores with Postgres mostly wake each other.
fn worker_threads() -> usize {
    let given = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|threads| threads.parse().ok());
    let cores = available_parallelism().map_or(1, usize::from);
    given.unwrap_or(if cores > 4 { cores } else { cores - 1 }).max(1)
}

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // One thread is one thread: of the other kind of runtime it would be a worker beside the main thread, and they would
    // wake each other for every message.
    let threads = worker_threads();
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let result = builder
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli::run(cli)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            settings::say_error(&format!("posthorn: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
