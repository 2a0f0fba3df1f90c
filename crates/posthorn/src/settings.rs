//! Where settings come from, and the commands that look at them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use posthorn_service::config::{self, Mistake, Sources};
use posthorn_service::telemetry;
use toml::Table;

use crate::migrate;
use crate::services::Service;

/// The options that settings come by.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SettingsArgs {
    /// A TOML file of settings
    #[arg(long, value_name = "FILE", env = "POSTHORN_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// One setting by its dotted name; overrides the file and the environment
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or("a setting is KEY=VALUE, such as queue.give_up.attempts=5")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl SettingsArgs {
    /// Reads the file and the environment.
    pub(crate) fn sources(&self) -> Result<Sources> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        // POSTHORN_CONFIG is the option, not a setting; so are the addresses that `ctl` takes.
        Ok(Sources { file, environment: std::env::vars().collect(), command_line: self.set.clone() })
    }
}

fn read_file(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not valid TOML", path.display()))
}

/// All sections there are.
pub(crate) fn sections() -> Vec<&'static str> {
    Service::ALL.iter().map(|service| service.section()).chain(["telemetry", "migrate"]).collect()
}

/// Mistakes as one error, a line each.
pub(crate) fn refused(mistakes: &[Mistake]) -> anyhow::Error {
    let lines: Vec<String> = mistakes.iter().map(|mistake| format!("  {mistake}")).collect();
    anyhow::anyhow!("the configuration is wrong:\n{}", lines.join("\n"))
}

/// What a process runs with: the section `[telemetry]`, and what was loaded of its services. All mistakes are told at
/// once, with what is said for sections that do not exist.
pub(crate) fn together<T>(
    sources: &Sources,
    services: Result<T, Vec<Mistake>>,
) -> Result<(telemetry::Config, T), Vec<Mistake>> {
    let unknown = config::unknown(&sections(), sources);
    match (telemetry::Config::load(sources), services) {
        (Ok(telemetry), Ok(services)) if unknown.is_empty() => Ok((telemetry, services)),
        (telemetry, services) => {
            let (telemetry, services) = (telemetry.err(), services.err());
            Err([Some(unknown), telemetry, services].into_iter().flatten().flatten().collect())
        }
    }
}

/// `posthorn config check`
pub(crate) fn check(args: &SettingsArgs) -> Result<()> {
    let sources = args.sources()?;
    let mut mistakes = together(&sources, Service::check_all(&sources)).err().unwrap_or_default();
    mistakes.extend(migrate::Config::load(&sources).err().into_iter().flatten());
    if !mistakes.is_empty() {
        bail!(refused(&mistakes));
    }
    say("the configuration is valid")
}

/// `posthorn config defaults`
pub(crate) fn print_defaults() -> Result<()> {
    let services = Service::ALL.iter().map(|service| service.defaults());
    let all: Vec<&str> =
        services.chain([telemetry::DEFAULTS, migrate::DEFAULTS]).map(str::trim_end).collect();
    say(&all.join("\n\n"))
}

/// Prints a line on standard output at once.
pub(crate) fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing to standard output")
}

/// Prints a line on standard error; there is nowhere to complain when that fails.
pub(crate) fn say_error(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
