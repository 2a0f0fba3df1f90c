//! A private Postgres.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};

use crate::child::{STOP_DEADLINE, Server};
use crate::{Error, is_plain_socket};

/// Whether what was committed outlives the machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `fsync` as in production.
    Full,
    /// No `fsync`: what was committed outlives the process, not the machine. For tests.
    ProcessOnly,
}

/// A private Postgres server; stops when dropped.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    port: u16,
    pid_file: PathBuf,
}

impl Postgres {
    /// Makes a cluster in `dir` if there is none, starts the server on 127.0.0.1:`port` and waits until it answers.
    /// Blocks. Users of the loopback are trusted, so the port is for machines whose users are.
    pub fn start(dir: &Path, port: u16, durability: Durability) -> Result<Self, Error> {
        let bin = bin_dir()?;
        let user = geteuid().is_root().then(unprivileged_user).transpose()?;
        fs::create_dir_all(dir).map_err(Error::io(format!("creating {}", dir.display())))?;
        let dir = dir.canonicalize().map_err(Error::io(format!("finding {}", dir.display())))?;
        let data = dir.join("data");
        let log = dir.join("postgres.log");
        if !data.join("PG_VERSION").exists() {
            init(&bin, &dir, &data, user.as_ref())?;
        }
        // A server that was killed leaves its pid behind; Postgres itself finds out whether it still runs.
        let mut command = command(user.as_ref(), &bin.join("postgres"));
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        for setting in settings(durability) {
            command.args(["-c", setting]);
        }
        let socket_dir = Self::socket_dir(&dir, port).unwrap_or_default();
        command.arg("-c").arg(format!("unix_socket_directories={}", socket_dir.display()));
        command.current_dir(&dir);
        let mut server = Server::spawn("postgres", command, &log, Signal::INT)?;
        let pid_file = data.join("postmaster.pid");
        let pid = server.pid().to_string();
        server.wait_until(&log, || is_ready(&pid_file, &pid))?;
        Ok(Self { server, port, pid_file })
    }

    /// Where one in `dir` also listens, with less work a turn than over TCP: the directory of its socket. `None` where
    /// the path would be too long for one.
    pub fn socket_dir(dir: &Path, port: u16) -> Option<PathBuf> {
        // Its own directory: nobody else gets in.
        let data = std::path::absolute(dir).ok()?.join("data");
        is_plain_socket(&data.join(format!(".s.PGSQL.{port}"))).then_some(data)
    }

    /// The address of a database for a user; the superuser is `postgres`.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Whether it has ended by itself, and was not restarted by somebody else.
    pub fn has_ended(&mut self) -> bool {
        self.server.has_ended() && running(&self.pid_file).is_none()
    }

    /// Stops it in order, ending the sessions (a "fast" shutdown). Blocks until it is down.
    ///
    /// One that was restarted meanwhile (`pg_ctl restart`) is no child of ours any more, but it is ours to stop.
    pub fn stop(mut self) {
        self.server.stop();
        let Some(pid) = running(&self.pid_file) else { return };
        if kill_process(pid, Signal::INT).is_err() {
            return;
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while running(&self.pid_file).is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it at once without a checkpoint (an "immediate" shutdown: the next start recovers). Blocks.
    pub fn crash(mut self) {
        self.server.signal(Signal::QUIT);
        self.server.stop();
    }
}

fn settings(durability: Durability) -> &'static [&'static str] {
    const FULL: &[&str] = &[
        "listen_addresses=127.0.0.1",
        "max_connections=200",
        "shared_buffers=256MB",
        "max_wal_size=2GB",
        "wal_compression=off",
        "synchronous_commit=on",
    ];
    const PROCESS_ONLY: &[&str] = &[
        "listen_addresses=127.0.0.1",
        "max_connections=200",
        "shared_buffers=64MB",
        "fsync=off",
        "full_page_writes=off",
    ];
    match durability {
        Durability::Full => FULL,
        Durability::ProcessOnly => PROCESS_ONLY,
    }
}

/// The server that `postmaster.pid` names, if it still runs.
fn running(pid_file: &Path) -> Option<Pid> {
    let text = fs::read_to_string(pid_file).ok()?;
    let pid = Pid::from_raw(text.lines().next()?.parse().ok()?)?;
    test_kill_process(pid).is_ok().then_some(pid)
}

/// The eighth line of `postmaster.pid` says what the server whose pid is the first line is up to.
fn is_ready(pid_file: &Path, pid: &str) -> bool {
    let text = fs::read_to_string(pid_file).unwrap_or_default();
    let mut lines = text.lines();
    lines.next() == Some(pid) && lines.nth(6).is_some_and(|state| state.trim() == "ready")
}

fn init(bin: &Path, dir: &Path, data: &Path, user: Option<&User>) -> Result<(), Error> {
    // Made beside its place and moved there when whole, so that an interrupted initdb leaves no half cluster.
    let fresh = dir.join("data.new");
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir(&fresh).map_err(Error::io("creating the cluster's directory"))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o700))
        .map_err(Error::io("closing it to others"))?;
    if let Some(user) = user {
        chown(&fresh, Some(user.uid), Some(user.gid)).map_err(Error::io("giving it to postgres"))?;
    }
    let output = command(user, &bin.join("initdb"))
        .arg("-D")
        .arg(&fresh)
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
        .current_dir(dir)
        .output()
        .map_err(Error::io("running initdb"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::NotStarted { program: "initdb", reason, log: fresh });
    }
    fs::rename(&fresh, data).map_err(Error::io("moving the new cluster to its place"))
}

#[derive(Debug)]
struct User {
    uid: u32,
    gid: u32,
}

/// Whom Postgres runs as when root starts it.
fn unprivileged_user() -> Result<User, Error> {
    let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("reading /etc/passwd"))?;
    let find = |name: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then_some(())?;
            Some(User { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        })
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .ok_or(Error::NotInstalled { program: "the user postgres", package: "postgresql" })
}

/// A command as that user. The capability lets it pass through directories of root's, such as /root itself.
fn command(user: Option<&User>, program: &Path) -> Command {
    let Some(user) = user else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .args(["--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"])
        .arg(program);
    command
}

/// Where Postgres' programs are: on the PATH, or where Debian keeps each version's.
fn bin_dir() -> Result<PathBuf, Error> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let debian = versions.into_iter().rev().map(|(_, path)| path);
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|p| std::env::split_paths(&p).collect::<Vec<_>>());
    debian
        .chain(on_path)
        .find(|dir| dir.join("postgres").exists() && dir.join("initdb").exists())
        .ok_or(Error::NotInstalled { program: "postgres", package: "postgresql" })
}
