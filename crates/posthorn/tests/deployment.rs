//! docker-compose.yml, the image, the Kubernetes manifests and the settings hold to one truth: what a deployment sets
//! exists and is taken, what must be set is, and nobody is killed while he drains.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod deployment {
    pub(crate) mod found;
    mod limits;
    mod observability;
}

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use deployment::found::{COMPOSE, Container, MANIFESTS, compose, manifests, read, root};

/// What a service takes beyond its drain time before it ends by itself (`serve.rs`).
const GRACE: Duration = Duration::from_secs(5);

/// Each container that has settings of its own, by its name on the command line, with its section.
const SECTIONS: [(&str, &str); 6] = [
    ("migrate", "migrate"),
    ("ingress", "ingress"),
    ("queue", "queue"),
    ("router", "router"),
    ("local-delivery", "local_delivery"),
    ("remote-relay", "relay"),
];

fn containers() -> Vec<Container> {
    let found = [compose(), manifests()].concat();
    for (name, _) in SECTIONS {
        let times = |file: &str| found.iter().filter(|c| c.name == name && c.file == file).count();
        assert_eq!([times(COMPOSE), times(MANIFESTS)], [1, 1], "{name} in compose and in the manifests");
    }
    found
}

/// Those with settings, and their sections; not `ctl` and its like.
fn with_sections() -> Vec<(Container, &'static str)> {
    let section = |name: &str| SECTIONS.iter().find(|(known, _)| *known == name).map(|(_, section)| *section);
    containers().into_iter().filter_map(|c| section(&c.name).map(|section| (c, section))).collect()
}

/// Those that listen and drain.
fn services() -> impl Iterator<Item = (Container, &'static str)> {
    with_sections().into_iter().filter(|(_, section)| *section != "migrate")
}

fn posthorn(arguments: &[&str], container: Option<&Container>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthorn"));
    command.args(arguments).env_clear();
    let secrets = tempfile::tempdir().unwrap();
    for (name, value) in container.iter().flat_map(|c| &c.variables) {
        if let Some(setting) = name.strip_suffix("_FILE") {
            let url =
                if setting.contains("REDIS") { "redis://:secret@redis:6379" } else { "postgres://a:b@c/d" };
            let secret = secrets.path().join(name);
            std::fs::write(&secret, url).unwrap();
            command.env(name, secret);
        } else {
            command.env(name, value);
        }
    }
    command.output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn defaults() -> toml::Table {
    text(&posthorn(&["config", "defaults"], None).stdout).parse().unwrap()
}

#[test]
fn what_is_set_exists_and_is_taken() {
    let of_ctl = text(&posthorn(&["ctl", "--help"], None).stdout);
    for container in containers() {
        let checked = posthorn(&["config", "check"], Some(&container));
        assert!(checked.status.success(), "{container}: {}", text(&checked.stderr));
        for name in container.variables.keys().filter(|name| !name.contains("__")) {
            assert!(of_ctl.contains(&format!("[env: {name}=]")), "{container}: nobody reads {name}");
        }
    }
}

/// Each variable that one may set for Compose has its place in the table that explains them.
#[test]
fn what_compose_lets_be_set_is_explained() {
    let manual = read("docs/OPERATING.md");
    let explained: Vec<&str> = manual.lines().filter(|line| line.starts_with("| `")).collect();
    let mut found = 0;
    for file in [COMPOSE, "deploy/compose/world.yml"] {
        let text = read(file);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let text = lines.join("\n");
        // `$${` is for a shell in a container.
        for (at, _) in text.match_indices("${").filter(|(at, _)| !text[..*at].ends_with('$')) {
            let name = text[at + 2..].split([':', '}']).next().unwrap();
            let is_explained = explained.iter().any(|line| line.contains(&format!("`{name}`")));
            assert!(
                is_explained,
                "{file} lets {name} be set, and docs/OPERATING.md does not say what it does"
            );
            found += 1;
        }
    }
    assert!(found > 30, "{found}");
}

/// A default that names this machine is right for `posthorn dev` alone: where services have machines of their own, each
/// such setting must be set.
#[test]
fn what_must_be_set_is() {
    let defaults = defaults();
    let mut wanted_somewhere = 0;
    for (container, section) in with_sections() {
        for setting in of_this_machine(section, &defaults[section]) {
            wanted_somewhere += 1;
            let name = format!("POSTHORN_{}", setting.replace('.', "__").to_uppercase());
            let is_set =
                [name.clone(), format!("{name}_FILE")].iter().any(|n| container.variables.contains_key(n));
            assert!(is_set, "{container} must set {setting} by {name}");
        }
    }
    assert!(wanted_somewhere > 30, "{wanted_somewhere}");
}

fn of_this_machine(name: &str, value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::Table(table) => {
            table.iter().flat_map(|(key, value)| of_this_machine(&format!("{name}.{key}"), value)).collect()
        }
        toml::Value::String(text) if text.contains("127.0.0.1") || text == "localhost" => {
            vec![name.to_owned()]
        }
        // Roles that log in from elsewhere need passwords.
        toml::Value::String(_) if name.starts_with("migrate.passwords.") => vec![name.to_owned()],
        _ => Vec::new(),
    }
}

#[test]
fn nobody_is_killed_while_he_drains() {
    let defaults = defaults();
    for (container, section) in services() {
        let set = container.variables.get(&format!("POSTHORN_{}__LISTEN__DRAIN", section.to_uppercase()));
        let drain =
            set.map_or_else(|| defaults[section]["listen"]["drain"].as_str().unwrap(), String::as_str);
        let needed = container.before_stop + seconds(drain) + GRACE;
        assert!(
            container.stop_after > needed,
            "{container} is killed after {:?}, and needs {needed:?}",
            container.stop_after
        );
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').and_then(|n| n.parse().ok()).expect("a number of seconds"))
}

#[test]
fn ports_are_those_that_are_listened_on() {
    for (container, section) in services() {
        let mut listened: BTreeSet<u16> = if section == "ingress" { [2525, 2587].into() } else { [].into() };
        for kind in ["GRPC", "HTTP"] {
            let address =
                &container.variables[&format!("POSTHORN_{}__LISTEN__{kind}", section.to_uppercase())];
            listened.insert(address.rsplit(':').next().unwrap().parse().unwrap());
        }
        assert!(container.ports.is_subset(&listened), "{container}: {:?} of {listened:?}", container.ports);
        assert!(!container.ports.is_empty() || container.file != MANIFESTS, "{container}");
    }
}

/// Dashboards, alerts and scaling rules speak of metrics that the code has.
#[test]
fn metrics_that_are_watched_exist() {
    let mut sources = String::new();
    for krate in std::fs::read_dir(root().join("crates")).unwrap() {
        read_all(&krate.unwrap().path().join("src"), "rs", &mut sources);
    }
    let known = names(&sources);
    let mut watched = String::new();
    for (folder, extension) in
        [("deploy/observability", "json"), ("deploy/observability", "yml"), ("deploy/kubernetes", "yaml")]
    {
        read_all(&root().join(folder), extension, &mut watched);
    }
    let watched = names(&watched);
    assert!(watched.len() > 10, "{watched:?}");
    for name in watched {
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        assert!(known.contains(&name) || known.contains(base), "{name} is watched, and no code counts it");
    }
}

fn read_all(folder: &Path, extension: &str, into: &mut String) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            read_all(&path, extension, into);
        } else if path.extension().is_some_and(|e| e == extension) {
            into.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// What looks like the name of a metric: `posthorn_SERVICE_…`.
fn names(text: &str) -> BTreeSet<String> {
    let services = ["ingress", "queue", "router", "local_delivery", "relay"];
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| {
            let rest = word.strip_prefix("posthorn_").unwrap_or_default();
            services.iter().any(|s| rest.strip_prefix(s).is_some_and(|rest| rest.starts_with('_')))
        })
        .map(str::to_owned)
        .collect()
}
