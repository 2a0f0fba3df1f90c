//! What a service may hold by its limits fits into its memory (R11), and what all replicas open into Postgres.

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

use super::found::{COMPOSE, MANIFESTS, PRODUCTION, SINGLE_NODE, bytes, documents, read, word, yaml};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Large contents go to the queue, and come from it, in pieces of this size.
const PIECE: u64 = 256 * KIB;
/// What a session reads at once, and the same again without stuffed dots.
const APPETITE: u64 = 2 * 64 * KIB;
/// A recipient with his address, parameters and verdict.
const RECIPIENT: u64 = 256;
/// Pieces of an upload that may be under way: what is being gathered (its room is doubled as it grows), two in line, one
/// that is encoded and one that the socket has.
const UPLOAD: u64 = 6 * PIECE;
/// The same at the queue: as it came, as it is gathered, as it is written.
const STORED: u64 = 3 * PIECE;
/// Batches that may wait for a worker that does not read.
const ANSWERS: u64 = 64;
/// Replicas of ingress and of remote-relay that one queue is to bear.
const CALLERS: u64 = 2;
/// The program, its connections and caches.
const ITSELF: u64 = 64 * MIB;

/// The settings of all services in one deployment.
struct Settings {
    set: BTreeMap<String, String>,
    defaults: toml::Table,
}

impl Settings {
    fn of(file: &str) -> Self {
        let containers = crate::containers().into_iter().filter(|container| container.file == file);
        Self { set: containers.flat_map(|c| c.variables).collect(), defaults: crate::defaults() }
    }

    /// A number, or a size in bytes.
    fn get(&self, name: &str) -> u64 {
        let variable = format!("POSTHORN_{}", name.replace('.', "__").to_uppercase());
        if let Some(set) = self.set.get(&variable) {
            return bytes(set);
        }
        let (sections, key) = name.rsplit_once('.').unwrap();
        let table = sections.split('.').fold(&self.defaults, |t, section| t[section].as_table().unwrap());
        match &table[key] {
            toml::Value::Integer(number) => number.unsigned_abs(),
            other => bytes(other.as_str().unwrap()),
        }
    }

    /// A message that goes to the queue whole: a small one, or one that is nothing but a header section.
    fn whole(&self) -> u64 {
        self.get("ingress.handover.inline").max(self.get("ingress.limits.header_size"))
    }

    /// What one ingress may have under way to the queue.
    fn calls(&self) -> u64 {
        self.get("ingress.handover.calls") * (self.get("ingress.handover.batch_size") + self.whole())
    }

    fn ingress(&self) -> u64 {
        let recipients = self.get("ingress.limits.recipients") * RECIPIENT;
        let session = APPETITE + recipients + (2 * self.whole()).max(UPLOAD);
        // As they came, and as they are encoded.
        self.get("ingress.limits.connections") * session + 2 * self.calls() + ITSELF
    }

    fn queue(&self) -> u64 {
        let waiting = self.get("queue.accept.max_waiting") * self.whole();
        let uploads = self.get("ingress.limits.connections") * STORED;
        let written = 2 * self.get("queue.accept.writers") * self.get("queue.accept.max_batch_bytes");
        let given = ANSWERS * self.get("queue.lease.inline_batch");
        waiting + written + CALLERS * (self.calls() + uploads + given) + ITSELF
    }

    fn relay(&self) -> u64 {
        let batch = self.get("relay.max_batch") * self.get("queue.lease.inline_up_to");
        let batch = batch.min(self.get("queue.lease.inline_batch"));
        // A piece as it came, converted, and as it is written.
        let connection = batch + 3 * PIECE;
        self.get("relay.connections") * connection + self.get("relay.conversion_memory") + ITSELF
    }
}

#[test]
fn what_the_limits_allow_fits_into_memory() {
    for file in [COMPOSE, MANIFESTS, PRODUCTION, SINGLE_NODE] {
        let settings = Settings::of(file);
        let reckoned = [
            ("ingress", settings.ingress()),
            ("queue", settings.queue()),
            ("remote-relay", settings.relay()),
        ];
        for (name, most) in reckoned {
            let container =
                crate::containers().into_iter().find(|c| c.file == file && c.name == name).unwrap();
            // A fifth more, for what the allocator keeps.
            let (most, has) = (most / MIB * 12 / 10, container.memory / MIB);
            assert!(most <= has, "{container} may come to need {most} MiB, and has {has}");
        }
    }
}

/// A message that waits takes 144 bytes (measured, docs/PERFORMANCE.md), and a little more while it is leased.
#[test]
fn redis_has_room_for_as_many_messages_as_the_spool() {
    let deployment = |document: &Value| document["kind"] == "Deployment";
    let manifest = documents(&format!("{SINGLE_NODE}/redis.yaml")).into_iter().find(deployment).unwrap();
    let in_cluster = &manifest["spec"]["template"]["spec"]["containers"][0];
    let in_compose = &yaml(COMPOSE)["services"]["redis"];
    for (file, args, memory) in [
        (COMPOSE, &in_compose["command"], &in_compose["mem_limit"]),
        (SINGLE_NODE, &in_cluster["args"], &in_cluster["resources"]["limits"]["memory"]),
    ] {
        let command = serde_yaml_ng::to_string(args).unwrap();
        assert!(command.contains("--maxmemory") && command.contains("/ 5 * 4"), "{file}: {command}");
        let messages = Settings::of(file).get("queue.spool.max_messages");
        let (wanted, has) = (messages * 144 * 11 / 10, bytes(&word(memory)) / 5 * 4);
        assert!(wanted <= has, "{messages} messages need {wanted} bytes, and Redis in {file} has {has}");
    }
    for script in ["deploy/compose/make-secrets", "deploy/kubernetes/make-secrets"] {
        // Full, it must say so, and forget nothing.
        assert!(read(script).contains("maxmemory-policy noeviction"), "{script}");
    }
}

#[test]
fn all_replicas_together_fit_into_postgres() {
    let postgres = &documents(&format!("{SINGLE_NODE}/postgres.yaml"))[0]["spec"]["template"]["spec"];
    let cluster = &documents("deploy/kubernetes/examples/cloudnativepg.yaml")[0]["spec"]["postgresql"];
    for (file, most) in [
        (COMPOSE, max_connections(&yaml(COMPOSE)["services"]["postgres"]["command"])),
        (SINGLE_NODE, max_connections(&postgres["containers"][0]["args"])),
        (PRODUCTION, bytes(&word(&cluster["parameters"]["max_connections"]))),
    ] {
        let settings = Settings::of(file);
        // local-delivery has two beside its limit, for notices. One more of each is there while they are rolled.
        let of = |name: &str, section: &str, beside: u64| {
            let each = settings.get(&format!("{section}.database.max_connections")) + beside;
            (most_replicas(file, name) + 1) * each
        };
        let opened =
            of("queue", "queue", 0) + of("router", "router", 0) + of("local-delivery", "local_delivery", 2);
        // What Postgres keeps for its superuser, the migration, an operator, monitoring.
        assert!(opened + 10 <= most, "{file}: {opened} connections, and Postgres takes {most}");
    }
}

/// The memory of a queue is reckoned for so many callers.
#[test]
fn no_more_replicas_call_a_queue_than_it_is_made_for() {
    for file in [MANIFESTS, PRODUCTION, SINGLE_NODE] {
        let queues = most_replicas(file, "queue");
        for caller in ["ingress", "remote-relay"] {
            let callers = most_replicas(file, caller);
            assert!(callers <= CALLERS * queues, "{file}: {callers} {caller} to {queues} queues");
        }
    }
}

/// The argument of a Postgres.
fn max_connections(arguments: &Value) -> u64 {
    let arguments = arguments.as_sequence().unwrap().iter().map(word);
    let mut found =
        arguments.filter_map(|word| Some(word.strip_prefix("-cmax_connections=")?.parse().unwrap()));
    found.next_back().expect("a limit of connections")
}

/// How far a service may grow. Compose does not grow by itself: as far as on a single node.
fn most_replicas(file: &str, name: &str) -> u64 {
    let named = |document: &&Value| document["metadata"]["name"] == name;
    let base = documents(&format!("{MANIFESTS}/{name}.yaml"));
    let scaled =
        base.iter().filter(named).find(|document| document["kind"] == "HorizontalPodAutoscaler").unwrap();
    let mut most = scaled["spec"]["maxReplicas"].as_u64().unwrap();
    let overlay = if file == COMPOSE { SINGLE_NODE } else { file };
    let kustomization = yaml(&format!("{overlay}/kustomization.yaml"));
    for patch in kustomization["patches"].as_sequence().into_iter().flatten() {
        let target = &patch["target"];
        let is_meant = target["kind"] == "HorizontalPodAutoscaler"
            && [&Value::Null, &Value::from(name)].contains(&&target["name"]);
        if is_meant {
            let operations: Vec<Value> = serde_yaml_ng::from_str(patch["patch"].as_str().unwrap()).unwrap();
            let set = operations.iter().filter(|operation| operation["path"] == "/spec/maxReplicas");
            most = set.map(|operation| operation["value"].as_u64().unwrap()).next_back().unwrap_or(most);
        }
    }
    let keda = documents("deploy/kubernetes/examples/keda/scaled-objects.yaml");
    let keda = keda.iter().filter(named).map(|scaled| scaled["spec"]["maxReplicaCount"].as_u64().unwrap());
    if file == PRODUCTION { keda.chain([most]).max().unwrap() } else { most }
}
