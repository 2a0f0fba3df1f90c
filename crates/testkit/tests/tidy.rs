//! The house is in order: who may depend on whom, which crate knows which store, and under which licences the rest
//! of the world's code comes. `deny.toml` says the same of licences and bans to `cargo deny`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// What each crate may depend on among ours; not more, in the binary or in its tests.
const ARROWS: [(&str, &[&str]); 19] = [
    // Pure.
    ("mail", &[]),
    ("smtp", &["mail"]),
    ("dsn", &["mail"]),
    // The shared shell.
    ("api", &["mail"]),
    ("smtp-io", &["mail", "smtp"]),
    ("content", &["database", "mail"]),
    ("service", &[]),
    ("database", &["service"]),
    ("work", &["api", "mail", "service"]),
    ("stores", &[]),
    // The services: never one on another; they meet in `api`.
    ("ingress", &["api", "mail", "service", "smtp", "smtp-io"]),
    ("queue", &["api", "content", "database", "dsn", "mail", "service"]),
    ("router", &["api", "database", "mail", "service", "work"]),
    ("local-delivery", &["api", "content", "database", "mail", "service", "work"]),
    ("remote-relay", &["api", "mail", "service", "smtp", "smtp-io", "work"]),
    (
        "posthorn",
        &[
            "api",
            "content",
            "database",
            "ingress",
            "local-delivery",
            "mail",
            "queue",
            "remote-relay",
            "router",
            "service",
            "stores",
        ],
    ),
    // For tests.
    ("testkit", &["api", "mail", "stores"]),
    ("e2e", &["api", "dsn", "mail", "smtp", "stores", "testkit"]),
    // For measuring.
    ("bench", &["api"]),
];

/// What a crate may use in its tests beside its arrows.
const IN_TESTS: [&str; 2] = ["testkit", "stores"];

/// Crates of others that only some of ours may know, and why.
const KNOWN_BY: [(&str, &[&str]); 9] = [
    // Only the queue knows Redis (R2, R6).
    ("redis", &["queue", "testkit"]),
    // The stores' own services, and the binary, which makes their roles in `posthorn migrate`.
    ("sqlx", &["content", "database", "queue", "router", "local-delivery", "posthorn", "testkit"]),
    // Only the router asks the DNS; tests answer.
    ("hickory-resolver", &["router"]),
    ("hickory-server", &["testkit"]),
    // SMTP meets a socket in one place.
    ("tokio-rustls", &["smtp-io", "testkit"]),
    ("webpki-roots", &["smtp-io"]),
    // Errors have names, except where a person reads them.
    ("anyhow", &["posthorn", "testkit", "e2e", "bench"]),
    ("clap", &["posthorn", "bench"]),
    ("proptest", &[]),
];

const PURE: [&str; 3] = ["mail", "smtp", "dsn"];

/// What no pure crate may reach, however far down: sockets, runtimes, databases, randomness of its own choice.
const IMPURE: [&str; 10] =
    ["tokio", "mio", "socket2", "sqlx", "redis", "hyper", "tonic", "rustls", "tracing-subscriber", "rand"];

/// What no pure crate may ask: time, the environment and the world come in as arguments.
const QUESTIONS: [&str; 7] =
    ["SystemTime::now", "Instant::now", "now_utc", "now_local", "std::env", "std::fs", "std::thread"];

/// A second TLS or cryptography library beside rustls with ring.
const BANNED: [&str; 6] = ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "libgssapi"];

const LICENCES: [&str; 9] = [
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "Unicode-3.0",
    "Zlib",
];

/// All packages that a build on this machine uses. Asks no network: to be testing, cargo has them all.
fn metadata() -> Metadata {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8(version.stdout).expect("rustc speaks UTF-8");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .other_options(["--offline", "--locked", "--filter-platform", host].map(str::to_owned))
        .exec()
        .expect("cargo knows the workspace")
}

/// `queue` for `posthorn-queue`; the binary is `posthorn`.
fn short(name: &str) -> &str {
    name.strip_prefix("posthorn-").unwrap_or(name)
}

fn is_ours(name: &str) -> bool {
    name == "posthorn" || name.starts_with("posthorn-")
}

fn members(metadata: &Metadata) -> impl Iterator<Item = (&str, &Package)> {
    metadata.workspace_packages().into_iter().map(|package| (short(package.name.as_str()), package))
}

#[test]
fn arrows_point_the_right_way() {
    let metadata = metadata();
    let arrows = BTreeMap::from(ARROWS);
    let mut wrong = Vec::new();
    for (name, package) in members(&metadata) {
        let Some(may) = arrows.get(name) else {
            wrong.push(format!("{name}: say in ARROWS what it may depend on"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| is_ours(&dependency.name)) {
            let on = short(&dependency.name);
            let in_tests = dependency.kind == DependencyKind::Development && IN_TESTS.contains(&on);
            if on != name && !may.contains(&on) && !in_tests {
                wrong.push(format!("{name} -> {on} ({} dependency)", dependency.kind));
            }
        }
    }
    assert!(wrong.is_empty(), "wrong arrows:\n  {}", wrong.join("\n  "));
}

#[test]
fn stores_and_sockets_are_known_by_few() {
    let metadata = metadata();
    let known_by = BTreeMap::from(KNOWN_BY);
    let mut wrong = Vec::new();
    for (name, package) in members(&metadata) {
        let normal =
            package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        for dependency in normal {
            if known_by.get(dependency.name.as_str()).is_some_and(|by| !by.contains(&name)) {
                wrong.push(format!("{name} -> {}", dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "these know what only others may:\n  {}", wrong.join("\n  "));
}

#[test]
fn pure_crates_reach_no_io() {
    let metadata = metadata();
    for pure in PURE {
        let below = reachable(&metadata, &format!("posthorn-{pure}"));
        let impure: Vec<_> = IMPURE.into_iter().filter(|name| below.contains(*name)).collect();
        assert!(impure.is_empty(), "{pure} reaches {impure:?}");
    }
}

#[test]
fn pure_crates_ask_nothing_of_the_world() {
    for pure in PURE {
        let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(pure).join("src")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(path.read_dir().expect("it can be listed").flatten().map(|entry| entry.path()));
                continue;
            }
            let code = std::fs::read_to_string(&path).expect("code is text");
            let asked: Vec<_> = QUESTIONS.into_iter().filter(|question| code.contains(question)).collect();
            assert!(asked.is_empty(), "{} asks {asked:?}", path.display());
        }
    }
}

/// The names of all that a package of ours uses when it runs, itself included.
fn reachable(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("the dependencies are resolved");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = metadata.packages.iter().find(|package| package.name.as_str() == name);
    let mut open = vec![&start.expect("it is one of ours").id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let normal = |dependency: &&cargo_metadata::NodeDep| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            };
            open.extend(nodes[id].deps.iter().filter(normal).map(|dependency| &dependency.pkg));
        }
    }
    metadata
        .packages
        .iter()
        .filter(|package| seen.contains(&package.id))
        .map(|package| package.name.to_string())
        .collect()
}

#[test]
fn nothing_banned_is_used() {
    let metadata = metadata();
    let banned: Vec<_> =
        metadata.packages.iter().filter(|package| BANNED.contains(&package.name.as_str())).collect();
    let banned: Vec<_> =
        banned.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
    assert!(banned.is_empty(), "banned: {banned:?}");
}

#[test]
fn every_licence_is_compatible() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        match package.license.as_deref() {
            Some(licence) if allowed(licence) => {}
            licence => wrong.push(format!("{} {}: {licence:?}", package.name, package.version)),
        }
    }
    assert!(wrong.is_empty(), "licences to look at:\n  {}", wrong.join("\n  "));
}

/// Whether an SPDX expression can be met with licences that we allow. The old "MIT/Apache-2.0" means OR.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any(&mut words) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// `all OR all OR ...`
fn any(words: &mut Words<'_>) -> bool {
    let mut met = all(words);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words);
    }
    met
}

/// `one AND one AND ...`
fn all(words: &mut Words<'_>) -> bool {
    let mut met = one(words);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words);
    }
    met
}

/// A licence, one WITH an exception (which only allows more), or an expression in parentheses.
fn one(words: &mut Words<'_>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let met = any(words);
        return words.next() == Some(")") && met;
    }
    let met = words.next().is_some_and(|licence| LICENCES.contains(&licence));
    if words.next_if_eq(&"WITH").is_some() {
        words.next();
    }
    met
}

#[test]
fn licence_expressions_are_understood() {
    for (expression, want) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT OR GPL-3.0-only", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR GPL-3.0-only) AND Unicode-3.0", true),
        ("MIT/Apache-2.0", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("AGPL-3.0-only OR (SSPL-1.0)", false),
        ("", false),
        ("MIT MIT", false),
    ] {
        assert_eq!(allowed(expression), want, "{expression}");
    }
}
