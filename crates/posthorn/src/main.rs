//! `posthorn`: one binary for every service, for an operator's commands, and for trying it out.

mod cli;
mod ctl;
mod dev;
mod forward;
mod migrate;
mod serve;
mod services;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = tokio::runtime::Builder::new_multi_thread()
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
