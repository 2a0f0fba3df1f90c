//! What the files of the deployment say, container by container.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize as _;
use serde_yaml_ng::Value;

/// A container of ours.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// The file that says so.
    pub(crate) file: &'static str,
    /// The service, or `migrate`.
    pub(crate) name: String,
    /// Its environment, that of the image included; only what is Posthorn's.
    pub(crate) variables: BTreeMap<String, String>,
    /// How long before SIGTERM it is told to do nothing.
    pub(crate) before_stop: Duration,
    /// When it is killed.
    pub(crate) stop_after: Duration,
    /// Its ports that others are told of.
    pub(crate) ports: BTreeSet<u16>,
}

impl Container {
    /// Whether it runs a service or the migration, and not a tool.
    pub(crate) fn is_ours(&self) -> bool {
        !["ctl", "example"].contains(&self.name.as_str())
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.name, self.file)
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The `ENV` of the image.
fn image() -> BTreeMap<String, String> {
    read("deploy/Dockerfile")
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("POSTHORN_")?.split_once('='))
        .map(|(name, value)| (format!("POSTHORN_{name}"), value.to_owned()))
        .collect()
}

/// The containers of docker-compose.yml that run our image.
pub(crate) fn compose() -> Vec<Container> {
    const FILE: &str = "docker-compose.yml";
    let mut whole: Value = serde_yaml_ng::from_str(&with_defaults(&read(FILE))).unwrap();
    whole.apply_merge().unwrap();
    let services = whole["services"].as_mapping().unwrap();
    let ours = services
        .iter()
        .filter(|(_, service)| service["image"].as_str().is_some_and(|image| image.starts_with("posthorn:")));
    ours.map(|(name, service)| {
        let mut variables = image();
        for (name, value) in service["environment"].as_mapping().into_iter().flatten() {
            variables.insert(word(name), word(value));
        }
        let ports = service["ports"].as_sequence().into_iter().flatten();
        let stop_after = service["stop_grace_period"].as_str().expect("a time to stop in");
        Container {
            file: FILE,
            name: word(name),
            variables,
            before_stop: Duration::ZERO,
            stop_after: Duration::from_secs(stop_after.trim_end_matches('s').parse().unwrap()),
            ports: ports.map(|port| word(port).rsplit(':').next().unwrap().parse().unwrap()).collect(),
        }
    })
    .collect()
}

/// `${NAME:-default}` replaced by the default.
fn with_defaults(text: &str) -> String {
    let mut pieces = text.split("${");
    let mut whole = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (variable, rest) = piece.split_once('}').expect("a variable ends");
        let (_, default) = variable.split_once(":-").expect("every variable has a default");
        whole.push_str(default);
        whole.push_str(rest);
    }
    whole
}

/// The Deployments and Jobs of the Kustomize base, with the settings that all of them are given.
pub(crate) fn manifests() -> Vec<Container> {
    const BASE: &str = "deploy/kubernetes/base";
    let settings = image().into_iter().chain(settings(&read(&format!("{BASE}/settings.env"))));
    let settings: BTreeMap<_, _> = settings.collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(BASE)).unwrap() {
        let path = entry.unwrap().path();
        let is_patch = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("every-"));
        if is_patch || path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        for document in serde_yaml_ng::Deserializer::from_str(&std::fs::read_to_string(&path).unwrap()) {
            let document = Value::deserialize(document).unwrap();
            if matches!(document["kind"].as_str(), Some("Deployment" | "Job")) {
                found.push(pod(&document, settings.clone()));
            }
        }
    }
    found
}

fn settings(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once('=').unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn pod(document: &Value, mut variables: BTreeMap<String, String>) -> Container {
    let spec = &document["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    for variable in container["env"].as_sequence().into_iter().flatten() {
        variables.insert(word(&variable["name"]), word(&variable["value"]));
    }
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().unwrap_or_default());
    let mut ports: Vec<&Value> = container["ports"].as_sequence().into_iter().flatten().collect();
    ports.iter_mut().for_each(|port| *port = &port["containerPort"]);
    ports.push(&container["readinessProbe"]["grpc"]["port"]);
    Container {
        file: "deploy/kubernetes/base",
        name: word(&document["metadata"]["name"]),
        variables,
        before_stop: seconds(&container["lifecycle"]["preStop"]["sleep"]["seconds"]),
        stop_after: seconds(&spec["terminationGracePeriodSeconds"]),
        ports: ports.iter().filter_map(|port| port.as_u64()?.try_into().ok()).collect(),
    }
}

/// A scalar as text.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => serde_yaml_ng::to_string(other).unwrap().trim().to_owned(),
    }
}
