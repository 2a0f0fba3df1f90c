//! `docs/CONFIGURATION.md` shows the settings that are compiled in: run `make reference` after changing a default.

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

#[test]
fn all_mistakes_are_told_at_once_and_by_name() {
    let checked = Command::new(env!("CARGO_BIN_EXE_posthorn"))
        .args(["config", "check", "--set", "queue.give_up.after=soon", "--set", "quue.x=1"])
        .env("POSTHORN_ROUTER__DNS__ATTEMPTS", "-1")
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(1));
    let told = String::from_utf8_lossy(&checked.stderr);
    for name in ["queue.give_up.after", "quue", "router.dns.attempts"] {
        assert!(told.contains(name), "{name} is not in: {told}");
    }
}
