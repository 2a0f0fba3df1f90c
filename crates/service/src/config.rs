//! Settings out of a service's commented defaults, a file, the environment and the command line.
//!
//! Later sources override earlier ones: defaults, file, environment, command line. A service has one section
//! (`[queue]`), and reads no other; `[telemetry]` is read by the process. A setting's dotted name (`queue.give_up.after`)
//! is `POSTHORN_QUEUE__GIVE_UP__AFTER` in the environment; the same with `_FILE` at its end names a file that holds
//! the value (a secret).

use std::fmt;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// What an environment variable's name begins with.
const PREFIX: &str = "POSTHORN_";

/// Where settings come from beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The parsed file.
    pub file: Table,
    /// The environment: name and value of every variable; those of others are passed over.
    pub environment: Vec<(String, String)>,
    /// `--set`: dotted name and value.
    pub command_line: Vec<(String, String)>,
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The dotted name of the setting.
    pub setting: String,
    /// Where it was said: `the file`, the variable's name, `--set`.
    pub source: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.setting, self.source, self.reason)
    }
}

/// A setting that is said somewhere, on its way to its place.
struct Said {
    path: Vec<String>,
    source: String,
    value: Meant,
}

/// A value as typed (the file) or as text that may be meant as TOML or as it stands.
enum Meant {
    Value(Value),
    Text(String),
}

/// Settings each of which may be as it is, but not beside the others: whether it is so, their names within the section,
/// the one to name first, and what is wrong with that.
pub type Contradiction = (bool, &'static [&'static str], &'static str);

/// Reads the section `section` of `defaults` (the text of a `defaults.toml` that has just this section), overlaid by
/// the sources. All mistakes are returned at once.
///
/// # Panics
/// When the defaults themselves are no TOML or lack the section: a mistake of the programmer.
pub fn load<T: DeserializeOwned>(
    section: &str,
    defaults: &str,
    sources: &Sources,
) -> Result<T, Vec<Mistake>> {
    load_consistent(section, defaults, sources, |_| Vec::new())
}

/// The same for a section whose settings can contradict each other: that is a mistake, too, as far as the settings
/// themselves are none.
///
/// # Panics
/// As [`load`].
pub fn load_consistent<T: DeserializeOwned>(
    section: &str,
    defaults: &str,
    sources: &Sources,
    contradictions: impl FnOnce(&T) -> Vec<Contradiction>,
) -> Result<T, Vec<Mistake>> {
    let all_together = |setting: String, reason: &str| Mistake {
        setting,
        source: "all together".into(),
        reason: reason.to_owned(),
    };
    let defaults = parse_defaults(section, defaults);
    let mut mistakes = Vec::new();
    let mut whole = defaults.clone();
    for said in sources.of(section, &defaults, &mut mistakes) {
        let value = match said.value {
            Meant::Value(value) => value,
            Meant::Text(text) => typed::<T>(&defaults, &said.path, &text),
        };
        // Each alone on top of the defaults, so that one mistake does not hide another.
        let mut alone = defaults.clone();
        put(&mut alone, &said.path, value.clone());
        match alone.try_into::<T>() {
            Ok(_) => put(&mut whole, &said.path, value),
            Err(error) => mistakes.push(Mistake {
                setting: format!("{section}.{}", said.path.join(".")),
                source: said.source,
                reason: error.message().to_owned(),
            }),
        }
    }
    match whole.try_into::<T>() {
        Err(error) => mistakes.push(all_together(section.to_owned(), error.message())),
        Ok(config) => {
            let name = |setting: &str| format!("{section}.{setting}");
            let mistaken: Vec<String> = mistakes.iter().map(|mistake| mistake.setting.clone()).collect();
            // Beside a mistake stands the default, which nobody has meant.
            let meant = |settings: &[&str]| !settings.iter().any(|setting| mistaken.contains(&name(setting)));
            let found = contradictions(&config).into_iter();
            let found = found.filter(|(is_so, settings, _)| *is_so && meant(settings));
            mistakes.extend(found.map(|(_, settings, reason)| all_together(name(settings[0]), reason)));
            if mistakes.is_empty() {
                return Ok(config);
            }
        }
    }
    Err(mistakes)
}

/// The settings of the file, environment and command line that belong to none of `sections`.
pub fn unknown(sections: &[&str], sources: &Sources) -> Vec<Mistake> {
    let reason = || format!("there is no such section; there are {}", sections.join(", "));
    let file = sources.file.keys().map(|name| (name.clone(), "the file".to_owned()));
    let environment = sources.environment.iter().filter_map(|(name, _)| {
        let section = name.strip_prefix(PREFIX)?.split_once("__")?.0.to_lowercase();
        Some((section, name.clone()))
    });
    let command_line = sources
        .command_line
        .iter()
        .map(|(name, _)| (name.split('.').next().unwrap_or_default().to_owned(), format!("--set {name}")));
    file.chain(environment)
        .chain(command_line)
        .filter(|(section, _)| !sections.contains(&section.as_str()))
        .map(|(setting, source)| Mistake { setting, source, reason: reason() })
        .collect()
}

impl Sources {
    fn of(&self, section: &str, defaults: &Table, mistakes: &mut Vec<Mistake>) -> Vec<Said> {
        let mut said = Vec::new();
        match self.file.get(section) {
            Some(Value::Table(table)) => leaves(table, &mut Vec::new(), &mut said),
            Some(_) => mistakes.push(Mistake {
                setting: section.to_owned(),
                source: "the file".into(),
                reason: "is a section, not a value".into(),
            }),
            None => {}
        }
        let prefix = format!("{PREFIX}{}__", section.to_uppercase());
        for (name, value) in &self.environment {
            let Some(rest) = name.strip_prefix(&prefix) else { continue };
            let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
            match read_file_setting(defaults, path, value) {
                Ok((path, text)) => said.push(Said { path, source: name.clone(), value: Meant::Text(text) }),
                Err(reason) => {
                    let setting = format!("{section}.{}", rest.to_lowercase().replace("__", "."));
                    mistakes.push(Mistake { setting, source: name.clone(), reason });
                }
            }
        }
        for (name, value) in &self.command_line {
            let mut path = name.split('.').map(str::to_owned);
            if path.next().as_deref() == Some(section) {
                said.push(Said {
                    path: path.collect(),
                    source: "--set".into(),
                    value: Meant::Text(value.clone()),
                });
            }
        }
        said
    }
}

/// A name that ends in `_file`, where no setting is called so, names a file that holds the value.
fn read_file_setting(
    defaults: &Table,
    mut path: Vec<String>,
    text: &str,
) -> Result<(Vec<String>, String), String> {
    if get(defaults, &path).is_none()
        && let Some(last) = path.last_mut()
        && let Some(name) = last.strip_suffix("_file")
    {
        *last = name.to_owned();
        let text = std::fs::read_to_string(text).map_err(|e| format!("cannot read {text}: {e}"))?;
        return Ok((path, text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    Ok((path, text.to_owned()))
}

fn parse_defaults(section: &str, defaults: &str) -> Table {
    let mut table: Table = defaults.parse().expect("the compiled-in defaults are TOML");
    match table.remove(section) {
        Some(Value::Table(table)) => table,
        _ => panic!("the compiled-in defaults have no section [{section}]"),
    }
}

fn leaves(table: &Table, path: &mut Vec<String>, said: &mut Vec<Said>) {
    for (name, value) in table {
        path.push(name.clone());
        match value {
            Value::Table(table) => leaves(table, path, said),
            leaf => said.push(Said {
                path: path.clone(),
                source: "the file".into(),
                value: Meant::Value(leaf.clone()),
            }),
        }
        path.pop();
    }
}

/// What a text stands for: where the default is a text, itself; else TOML, if the setting takes it so.
fn typed<T: DeserializeOwned>(defaults: &Table, path: &[String], text: &str) -> Value {
    let as_it_stands = Value::String(text.to_owned());
    let Some(value) = format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v"))
    else {
        return as_it_stands;
    };
    if value.is_str() {
        return value;
    }
    let mut with_value = defaults.clone();
    put(&mut with_value, path, value.clone());
    let mut with_text = defaults.clone();
    put(&mut with_text, path, as_it_stands.clone());
    // A number where a text belongs (a password of digits): take it as it stands.
    if with_value.try_into::<T>().is_err() && with_text.try_into::<T>().is_ok() {
        as_it_stands
    } else {
        value
    }
}

fn get<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (last, way) = path.split_last()?;
    way.iter().try_fold(table, |table, name| table.get(name)?.as_table())?.get(last)
}

fn put(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            table.insert(last.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;

    const DEFAULTS: &str = "[queue]\nname = 'q'\nservers = []\n[queue.give_up]\nafter = '5d'\nattempts = 0\n";

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Queue {
        name: String,
        servers: Vec<String>,
        give_up: GiveUp,
        secret: Option<String>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct GiveUp {
        #[serde(with = "humantime_serde")]
        after: Duration,
        attempts: u32,
    }

    fn pairs(said: &[(&str, &str)]) -> Vec<(String, String)> {
        said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn later_sources_go_before_earlier_ones() {
        let sources = Sources {
            file: "[queue]\nname = 'file'\n[queue.give_up]\nattempts = 3\n".parse().unwrap(),
            environment: pairs(&[
                ("POSTHORN_QUEUE__GIVE_UP__AFTER", "20s"),
                ("POSTHORN_QUEUE__NAME", "7"),
                ("HOME", "x"),
            ]),
            command_line: pairs(&[
                ("queue.servers", "[\"127.0.0.1:5354\"]"),
                ("queue.give_up.after", "\"30s\""),
            ]),
        };
        let queue: Queue = load("queue", DEFAULTS, &sources).unwrap();
        let give_up = GiveUp { after: Duration::from_secs(30), attempts: 3 };
        assert_eq!(
            queue,
            Queue { name: "7".into(), servers: vec!["127.0.0.1:5354".into()], give_up, secret: None }
        );
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let sources = Sources {
            file: "[queue]\nnme = 'x'\n".parse().unwrap(),
            environment: pairs(&[("POSTHORN_QUEUE__GIVE_UP__AFTER", "soon")]),
            command_line: pairs(&[("queue.give_up.attempts", "-1")]),
        };
        let mistakes = load::<Queue>("queue", DEFAULTS, &sources).unwrap_err();
        let settings: Vec<_> = mistakes.iter().map(|m| (m.setting.as_str(), m.source.as_str())).collect();
        assert_eq!(
            settings,
            [
                ("queue.nme", "the file"),
                ("queue.give_up.after", "POSTHORN_QUEUE__GIVE_UP__AFTER"),
                ("queue.give_up.attempts", "--set"),
            ]
        );
    }

    #[test]
    fn contradictions_are_told_beside_mistakes_but_not_of_them() {
        let contradictions = |queue: &Queue| {
            let (attempts, name) = (queue.give_up.attempts, queue.name.as_str());
            vec![
                (attempts == 0 && name != "q", &["name", "give_up.attempts"][..], "needs an attempt"),
                (name.len() > 3, &["name"][..], "is long"),
            ]
        };
        for (said, told) in [
            (&[("queue.name", "x")][..], &["queue.name: needs an attempt"][..]),
            (&[("queue.name", "x"), ("queue.give_up.attempts", "1")], &[]),
            (
                &[("queue.name", "long"), ("queue.give_up.attempts", "many")],
                &["queue.give_up.attempts: invalid type", "queue.name: is long"],
            ),
        ] {
            let sources = Sources { command_line: pairs(said), ..Sources::default() };
            let found =
                load_consistent("queue", DEFAULTS, &sources, contradictions).err().unwrap_or_default();
            let found: Vec<_> = found.iter().map(|m| format!("{}: {}", m.setting, m.reason)).collect();
            let as_wanted = found.iter().zip(told).all(|(found, told)| found.starts_with(told));
            assert!(as_wanted && found.len() == told.len(), "{said:?}: {found:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_by_the_settings_name() {
        let environment = pairs(&[("POSTHORN_QUEUE__GIVE_UP__SECRET_FILE", "/nowhere")]);
        let mistakes = load::<Queue>("queue", DEFAULTS, &Sources { environment, ..Sources::default() });
        assert_eq!(mistakes.unwrap_err()[0].setting, "queue.give_up.secret_file");
    }

    #[test]
    fn a_secret_is_read_from_its_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "hunter2").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let sources =
            Sources { environment: vec![("POSTHORN_QUEUE__SECRET_FILE".into(), path)], ..Sources::default() };
        assert_eq!(load::<Queue>("queue", DEFAULTS, &sources).unwrap().secret.as_deref(), Some("hunter2"));
    }

    #[test]
    fn a_section_that_is_not_there_is_named() {
        let sources = Sources { file: "[quue]\n".parse().unwrap(), ..Sources::default() };
        assert_eq!(unknown(&["queue"], &sources)[0].setting, "quue");
    }
}
