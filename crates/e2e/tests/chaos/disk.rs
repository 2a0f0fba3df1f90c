//! A small disk that can be filled up.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// A file system of its own in memory; gone when dropped.
pub(crate) struct Disk {
    directory: TempDir,
}

impl Disk {
    /// Fails where none can be mounted, which only root may.
    pub(crate) fn mount() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("posthorn-disk-").tempdir()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1g,mode=0755", "posthorn-chaos"])
            .arg(directory.path())
            .output()
            .context("running mount")?;
        let reason = String::from_utf8_lossy(&mounted.stderr);
        ensure!(mounted.status.success(), "a disk that can be full needs root: {}", reason.trim());
        Ok(Self { directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no room.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.ballast())?;
        for size in [1 << 20, 4 << 10] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(())
    }

    /// Makes room again.
    pub(crate) fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that takes its time to stop does not keep it.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
