//! What the files of the deployment say, container by container.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize as _;
use serde_yaml_ng::Value;

pub(crate) const COMPOSE: &str = "docker-compose.yml";
pub(crate) const MANIFESTS: &str = "deploy/kubernetes/base";
pub(crate) const PRODUCTION: &str = "deploy/kubernetes/overlays/production";
pub(crate) const SINGLE_NODE: &str = "deploy/kubernetes/overlays/single-node";
/// What may be laid over docker-compose.yml.
const OVER_COMPOSE: [&str; 2] = ["deploy/compose/world.yml", "deploy/compose/test/compose.yml"];

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
    /// The bytes of memory beyond which it is killed.
    pub(crate) memory: u64,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.name, self.file)
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The documents of a YAML file.
pub(crate) fn documents(path: &str) -> Vec<Value> {
    let text = read(path);
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

/// A size as a number of bytes, as all of them write it here: `512m`, `1Gi`, `256KiB`; in powers of 1,024.
pub(crate) fn bytes(text: &str) -> u64 {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.bytes().next().map(|first| first.to_ascii_lowercase()) {
        None => 0,
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        Some(_) => panic!("{text} is no size"),
    };
    number.parse::<u64>().unwrap() << shift
}

/// The `ENV` of the image.
fn image() -> BTreeMap<String, String> {
    read("deploy/Dockerfile")
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("POSTHORN_")?.split_once('='))
        .map(|(name, value)| (format!("POSTHORN_{name}"), value.to_owned()))
        .collect()
}

/// The containers of docker-compose.yml that run our image; then those that something is laid over.
pub(crate) fn compose() -> Vec<Container> {
    let whole = yaml(COMPOSE);
    let services = whole["services"].as_mapping().unwrap();
    let ours = services.iter().filter(|(_, service)| word(&service["image"]).starts_with("posthorn:"));
    let mut found: Vec<Container> = ours.map(|(name, service)| service_of_compose(name, service)).collect();
    for file in OVER_COMPOSE {
        for (name, over) in yaml(file)["services"].as_mapping().unwrap() {
            let below = found.iter().find(|c| c.file == COMPOSE && c.name == word(name)).cloned();
            if let Some(mut container) = below {
                container.file = file;
                container.variables.extend(environment(over));
                found.push(container);
            }
        }
    }
    found
}

/// A YAML file with what it merges into its mappings.
pub(crate) fn yaml(path: &str) -> Value {
    let mut whole: Value = serde_yaml_ng::from_str(&read(path)).unwrap();
    whole.apply_merge().unwrap();
    whole
}

fn environment(service: &Value) -> impl Iterator<Item = (String, String)> {
    service["environment"].as_mapping().into_iter().flatten().map(|(name, value)| (word(name), word(value)))
}

fn service_of_compose(name: &Value, service: &Value) -> Container {
    let ports = service["ports"].as_sequence().into_iter().flatten();
    let stop_after = service["stop_grace_period"].as_str().expect("a time to stop in");
    Container {
        file: COMPOSE,
        name: word(name),
        variables: image().into_iter().chain(environment(service)).collect(),
        before_stop: Duration::ZERO,
        stop_after: Duration::from_secs(stop_after.trim_end_matches('s').parse().unwrap()),
        ports: ports.map(|port| word(port).rsplit(':').next().unwrap().parse().unwrap()).collect(),
        memory: bytes(&word(&service["mem_limit"])),
    }
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

/// The Deployments and Jobs of the Kustomize base, with the settings that all of them are given; then the same with what
/// the overlays set.
pub(crate) fn manifests() -> Vec<Container> {
    let base = settings(&read(&format!("{MANIFESTS}/settings.env")));
    let mut pods = Vec::new();
    for entry in std::fs::read_dir(root().join(MANIFESTS)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("every-") && name.ends_with(".yaml") {
            pods.extend(documents(&format!("{MANIFESTS}/{name}")));
        }
    }
    pods.retain(|document| matches!(document["kind"].as_str(), Some("Deployment" | "Job")));
    let mut found = Vec::new();
    for file in [MANIFESTS, PRODUCTION, SINGLE_NODE] {
        let settings = image().into_iter().chain(base.clone()).chain(literals(file));
        let settings: BTreeMap<_, _> = settings.collect();
        found.extend(pods.iter().map(|document| pod(file, document, settings.clone())));
    }
    found
}

/// The settings that a kustomization gives itself.
fn literals(folder: &str) -> Vec<(String, String)> {
    let kustomization = yaml(&format!("{folder}/kustomization.yaml"));
    let generators = kustomization["configMapGenerator"].as_sequence().into_iter().flatten();
    let literals = generators.flat_map(|generator| generator["literals"].as_sequence().into_iter().flatten());
    literals.flat_map(|literal| settings(literal.as_str().unwrap())).collect()
}

fn settings(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once('=').unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn pod(file: &'static str, document: &Value, mut variables: BTreeMap<String, String>) -> Container {
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
        file,
        name: word(&document["metadata"]["name"]),
        variables,
        before_stop: seconds(&container["lifecycle"]["preStop"]["sleep"]["seconds"]),
        stop_after: seconds(&spec["terminationGracePeriodSeconds"]),
        ports: ports.iter().filter_map(|port| port.as_u64()?.try_into().ok()).collect(),
        memory: bytes(&word(&container["resources"]["limits"]["memory"])),
    }
}

/// A scalar as text; where nothing is set in the environment.
pub(crate) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => with_defaults(text),
        Value::Null => String::new(),
        other => serde_yaml_ng::to_string(other).unwrap().trim().to_owned(),
    }
}
