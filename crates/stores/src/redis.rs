//! A private Redis.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::Server;
use crate::{Error, is_plain_socket};

/// A private Redis server; stops when dropped.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: u16,
}

impl Redis {
    /// Starts the server on 127.0.0.1:`port` with its append-only file in `dir` and waits until it answers. Blocks.
    ///
    /// The file is synced each second: Postgres is the ledger, and what Redis forgets is refilled from it (R2).
    pub fn start(dir: &Path, port: u16) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::io(format!("creating {}", dir.display())))?;
        let dir = dir.canonicalize().map_err(Error::io(format!("finding {}", dir.display())))?;
        let log = dir.join("redis.log");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(&dir).args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
            "--save",
            "",
            "--daemonize",
            "no",
        ]);
        if let Some(socket) = Self::socket(&dir) {
            command.arg("--unixsocket").arg(socket).args(["--unixsocketperm", "700"]);
        }
        let mut server = match Server::spawn("redis-server", command, &log, Signal::TERM) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NotInstalled { program: "redis-server", package: "redis-server" });
            }
            started => started?,
        };
        server.wait_until(&log, || answers(port))?;
        Ok(Self { server, port })
    }

    /// Where one in `dir` also listens, with less work a turn than over TCP. `None` where the path would be too long for
    /// a socket.
    pub fn socket(dir: &Path) -> Option<PathBuf> {
        let socket = std::path::absolute(dir).ok()?.join("redis.sock");
        is_plain_socket(&socket).then_some(socket)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.server.has_ended()
    }

    /// Stops it in order. Blocks until it is down.
    pub fn stop(mut self) {
        self.server.stop();
    }

    /// Kills it, as a crash would. Blocks until it is down.
    pub fn crash(mut self) {
        self.server.kill();
    }
}

/// PING is answered only once the file has been loaded.
fn answers(port: u16) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    ping().unwrap_or(false)
}
