//! Writes `src/gen` anew from `/proto`: `cargo run -p posthorn-api --example generate` (or `make proto`).
//!
//! The generated code is committed, so that building Posthorn needs no protobuf compiler; protox is one in Rust.

use std::path::Path;

use anyhow::{Context, Result};
use prost::Message as _;

/// Generates the Rust code and the descriptor set of all packages below `proto` into `out`.
pub(crate) fn generate(proto: &Path, out: &Path) -> Result<()> {
    let mut files = Vec::new();
    find_protos(proto, &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, [proto]).context("compiling the protos")?;
    std::fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".")
        .compile_fds(descriptors)
        .context("generating the code")
}

fn find_protos(dir: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

#[allow(dead_code, reason = "unused where the drift test includes this file")]
fn main() -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    generate(&here.join("../../proto"), &here.join("src/gen"))
}
