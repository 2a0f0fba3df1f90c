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

/// Fails with all that is said for sections that do not exist.
pub(crate) fn refuse_unknown(sources: &Sources) -> Result<()> {
    let mistakes = config::unknown(&sections(), sources);
    if mistakes.is_empty() { Ok(()) } else { Err(refused(&mistakes)) }
}

/// The section `[telemetry]`.
pub(crate) fn telemetry(sources: &Sources) -> Result<telemetry::Config, Vec<Mistake>> {
    telemetry::Config::load(sources)
}

/// `posthorn config check`
pub(crate) fn check(args: &SettingsArgs) -> Result<()> {
    let sources = args.sources()?;
    let mut mistakes = config::unknown(&sections(), &sources);
    for service in Service::ALL {
        mistakes.extend(service.load(&sources).err().into_iter().flatten());
    }
    mistakes.extend(telemetry(&sources).err().into_iter().flatten());
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
