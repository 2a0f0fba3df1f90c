//! A server process that does not outlive its owner.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// How long a server may take to become ready (Postgres may have a log to replay).
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a server may take to stop before it is killed.
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A running server and its watcher.
#[derive(Debug)]
pub(crate) struct Server {
    program: &'static str,
    child: Child,
    /// While this pipe is open the watcher waits; it closes when the owner drops it or dies.
    pipe: Option<ChildStdin>,
    watcher: Child,
    stop_signal: Signal,
}

impl Server {
    /// Starts `command` with its output in `log`, in a process group of its own (a Ctrl-C at the terminal is for the
    /// owner, who stops the server when it is done with it).
    pub(crate) fn spawn(
        program: &'static str,
        mut command: Command,
        log: &Path,
        stop_signal: Signal,
    ) -> Result<Self, Error> {
        let output = File::create(log).map_err(Error::io(format!("creating {}", log.display())))?;
        let errors = output.try_clone().map_err(Error::io("sharing a log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("starting {program}")))?;
        let mut watcher = Command::new("sh")
            .args(["-c", "read -r _; kill -s \"$1\" \"$0\" 2>/dev/null"])
            .arg(child.id().to_string())
            .arg(if stop_signal == Signal::INT { "INT" } else { "TERM" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io("starting a watcher"))?;
        let pipe = watcher.stdin.take();
        Ok(Self { program, child, pipe, watcher, stop_signal })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` says so, the server ends, or the deadline passes.
    pub(crate) fn wait_until(&mut self, log: &Path, ready: impl Fn() -> bool) -> Result<(), Error> {
        let failed = |program, reason| Error::NotStarted { program, reason, log: log.to_owned() };
        let deadline = Instant::now() + START_DEADLINE;
        while !ready() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(failed(self.program, format!("it ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(failed(self.program, format!("not ready after {START_DEADLINE:?}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Stops the server in order and waits for it; kills it when it takes too long.
    pub(crate) fn stop(&mut self) {
        self.signal(self.stop_signal);
        let deadline = Instant::now() + STOP_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                tracing::warn!(program = self.program, "does not stop: killing it");
                let _ = self.child.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.wait();
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Sends a signal to the server, unless it has ended: its process id may be another's by now.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if let Ok(None) = self.child.try_wait()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, as a crash would; for tests of what survives one.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The watcher must not outlive the server either: its process id may be given to another one day.
        let _ = self.watcher.kill();
        drop(self.pipe.take());
        let _ = self.watcher.wait();
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}
