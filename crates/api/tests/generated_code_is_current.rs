//! The committed code is what the protos make: run `make proto` after changing one.

#[path = "../examples/generate.rs"]
mod generate;

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    generate::generate(&here.join("../../proto"), fresh.path()).unwrap();
    for entry in std::fs::read_dir(fresh.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let committed = std::fs::read(here.join("src/gen").join(&name)).unwrap_or_default();
        let made = std::fs::read(fresh.path().join(&name)).unwrap();
        assert!(committed == made, "{} has drifted from /proto: run `make proto`", name.to_string_lossy());
    }
}
