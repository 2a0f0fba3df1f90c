//! `docs/CONFIGURATION.md` shows the settings that are compiled in: run `make reference` after changing a default.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;
use std::process::Command;

#[test]
fn the_reference_is_current() {
    let output = Command::new(env!("CARGO_BIN_EXE_posthorn")).args(["config", "defaults"]).output().unwrap();
    assert!(output.status.success());
    let compiled_in = String::from_utf8(output.stdout).unwrap();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIGURATION.md");
    let document = std::fs::read_to_string(document).unwrap();
    let blocks = document.split("```toml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let shown = blocks.collect::<Vec<_>>().join("\n\n") + "\n";
    assert!(shown == compiled_in, "docs/CONFIGURATION.md has drifted: run `make reference`");
}

#[test]
fn the_reference_is_a_right_configuration() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let defaults =
        Command::new(env!("CARGO_BIN_EXE_posthorn")).args(["config", "defaults"]).output().unwrap();
    std::fs::write(file.path(), defaults.stdout).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_posthorn"))
        .args(["config", "check", "--config"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Of each kind one, in all sections; what each section refuses is tested beside it.
const MISTAKES: [&str; 12] = [
    "quue.x=1",
    "relay.max_hosts=0",
    "relay.hostname=bad host",
    "relay.timeouts.connect=0s",
    "telemetry.log.level=info,,,==",
    "telemetry.sample=7",
    "ingress.queue=not a url",
    "ingress.limits.message_size=0",
    "queue.redis.url=banana",
    "queue.database.url=mysql://x",
    "queue.give_up.after=0s",
    "migrate.database.url=mysql://x",
];

fn told(command: &[&str]) -> String {
    let told = Command::new(env!("CARGO_BIN_EXE_posthorn"))
        .args(command)
        .args(MISTAKES.iter().flat_map(|mistake| ["--set", mistake]))
        .env("POSTHORN_ROUTER__DNS__ATTEMPTS", "-1")
        .output()
        .unwrap();
    assert_eq!(told.status.code(), Some(1), "{command:?}");
    String::from_utf8(told.stderr).unwrap()
}

#[test]
fn all_mistakes_are_told_at_once_and_by_name() {
    let told = told(&["config", "check"]);
    for mistake in MISTAKES.iter().chain(&["router.dns.attempts=-1"]) {
        let name = mistake.split('=').next().unwrap().trim_end_matches(".x");
        assert!(told.contains(&format!("  {name} (")), "{name} is not in: {told}");
    }
}

#[test]
fn a_service_refuses_what_the_check_refuses_of_its_settings() {
    let told = told(&["remote-relay"]);
    for name in [
        "quue",
        "telemetry.log.level",
        "telemetry.sample",
        "relay.max_hosts",
        "relay.hostname",
        "relay.timeouts.connect",
    ] {
        assert!(told.contains(&format!("  {name} (")), "{name} is not in: {told}");
    }
    assert!(!told.contains("queue.redis"), "it has only its own: {told}");
}
