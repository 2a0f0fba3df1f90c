//! Doing harm to the stores of a running Posthorn.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Posthorn;
use crate::posthorn::signal;

impl Posthorn {
    /// Empties its Redis.
    pub async fn flush_redis(&self) -> Result<()> {
        let mut redis = TcpStream::connect(self.address(16379)).await?;
        redis.write_all(b"FLUSHALL\r\n").await?;
        let mut answer = [0; 5];
        redis.read_exact(&mut answer).await?;
        ensure!(&answer == b"+OK\r\n", "{}", answer.escape_ascii());
        Ok(())
    }

    /// Ends its Redis.
    pub async fn end_redis(&self) -> Result<()> {
        let mut redis = TcpStream::connect(self.address(16379)).await?;
        redis.write_all(b"SHUTDOWN NOSAVE\r\n").await?;
        // It answers by closing the connection.
        redis.read_to_end(&mut Vec::new()).await?;
        Ok(())
    }

    /// Ends its Postgres at once (an "immediate" shutdown).
    pub fn end_postgres(&self) -> Result<()> {
        signal(self.postmaster()?.parse()?, Signal::QUIT)
    }

    fn postmaster(&self) -> Result<String> {
        let pid_file = fs::read_to_string(self.data().join("postgres/data/postmaster.pid"))?;
        Ok(pid_file.lines().next().context("its process id")?.to_owned())
    }

    /// Kills a process of its Postgres that serves the queue: Postgres then ends all its sessions, as it cannot know
    /// what that one left in shared memory, and recovers from its log as after a power failure.
    pub fn crash_postgres(&self) -> Result<()> {
        let postmaster = self.postmaster()?;
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
                continue;
            };
            // It may end meanwhile.
            let (Ok(status), Ok(title)) =
                (fs::read_to_string(path.join("status")), fs::read_to_string(path.join("cmdline")))
            else {
                continue;
            };
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            if parent.is_some_and(|parent| parent.trim() == postmaster) && title.contains("posthorn_queue") {
                return signal(pid, Signal::KILL);
            }
        }
        anyhow::bail!("no process of Postgres serves the queue")
    }
}
