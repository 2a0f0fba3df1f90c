//! Dovecot's LMTP behind a Postfix, as an instance of its own: mailboxes with indexes, as ours have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// A running Dovecot; stops when dropped.
#[derive(Debug)]
pub(crate) struct Dovecot {
    master: Child,
    socket: PathBuf,
}

const DEADLINE: Duration = Duration::from_secs(30);

impl Dovecot {
    /// Starts one with its files in `dir`, which must not exist, and mailboxes below `mail`, which belongs to nobody.
    pub(crate) async fn start(dir: &Path, mail: &Path) -> Result<Self> {
        fs::create_dir(dir)?;
        let socket = dir.join("run/lmtp");
        let (shown, mail) = (dir.display(), mail.display());
        let paths = format!(
            "base_dir = {shown}/run\nstate_dir = {shown}/state\nlog_path = {shown}/dovecot.log\n\
             passdb {{\n  driver = static\n  args = nopassword=y\n}}\n\
             userdb {{\n  driver = static\n  args = uid=nobody gid=nogroup home={mail}/%n allow_all_users=yes\n}}\n"
        );
        let config = dir.join("dovecot.conf");
        fs::write(&config, format!("{paths}{SETTINGS}"))?;
        let mut master = Command::new("dovecot")
            .args(["-F", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting Dovecot (on Debian: apt-get install dovecot-lmtpd)")?;
        let deadline = Instant::now() + DEADLINE;
        while !socket.exists() {
            let ended = master.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let _ = master.start_kill();
                let log = fs::read_to_string(dir.join("dovecot.log")).unwrap_or_default();
                bail!("Dovecot did not start: {ended:?}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { master, socket })
    }

    /// Where it takes mail by LMTP.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process that all others descend from.
    pub(crate) fn root(&self) -> u32 {
        // It is waited for only by `drop`.
        self.master.id().unwrap_or_default()
    }
}

impl Drop for Dovecot {
    /// SIGTERM ends the master and, with it, all its processes.
    fn drop(&mut self) {
        let pid = self.master.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if pid.is_none_or(|pid| kill_process(pid, Signal::TERM).is_err()) {
            return;
        }
        let deadline = Instant::now() + DEADLINE;
        while matches!(self.master.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.master.start_kill();
    }
}

/// The settings that differ from Dovecot's own. It logs no single delivery.
pub(crate) const SETTINGS: &str = "\
protocols = lmtp
listen = 127.0.0.1
ssl = no
mail_location = maildir:~/
first_valid_uid = 1
info_log_path = /dev/null
service lmtp {
  process_min_avail = 4
  unix_listener lmtp {
    mode = 0666
  }
}
";
