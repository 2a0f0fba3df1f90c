//! A clock that can be set, for services that are told to go by it.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use posthorn_e2e::fleet::Replica;

/// Of Debian's package `libfaketime`: it tells a process another time of day.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

pub(crate) struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right, and lies in a directory.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        ensure!(
            Path::new(LIBRARY).exists(),
            "{LIBRARY} is missing, without which no clock can be set: apt-get install libfaketime"
        );
        let clock = Self { file: directory.join("clock") };
        clock.set("+0")?;
        Ok(clock)
    }

    /// `+1h`, `-1h`, `+0`.
    pub(crate) fn set(&self, offset: &str) -> Result<()> {
        Ok(std::fs::write(&self.file, offset)?)
    }

    /// Starts a service anew, by this clock.
    pub(crate) async fn govern(&self, replica: &mut Replica) -> Result<()> {
        replica.environment = vec![
            ("LD_PRELOAD".into(), LIBRARY.into()),
            ("FAKETIME_TIMESTAMP_FILE".into(), self.file.display().to_string()),
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            // A clock that is set leaves the one that counts seconds alone.
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ];
        replica.stop().await?;
        replica.start()
    }
}
