//! A second process of a service.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{Posthorn, START_DEADLINE};

/// One more process of a service; stops when dropped, as its input then ends.
#[derive(Debug)]
pub(crate) struct Replica {
    _child: Child,
    /// Where it takes mail, if it is an ingress.
    pub(crate) smtp: SocketAddr,
}

impl Posthorn {
    /// Starts one more process of a service beside the one that runs, on ports of its own.
    pub(crate) async fn replica(&self, service: &str, section: &str) -> Result<Replica> {
        let [grpc, http, smtp, submission] = free_addresses()?;
        let mut command = Command::new(&self.binary);
        command.args([service, "--until-stdin-closes", "--config"]).arg(self.data.path().join("dev.toml"));
        let mut settings = self.settings.clone();
        settings.push(format!("{section}.listen.grpc=\"{grpc}\""));
        settings.push(format!("{section}.listen.http=\"{http}\""));
        settings.push(format!("ingress.smtp.listen=[\"{smtp}\"]"));
        settings.push(format!("ingress.submission.listen=[\"{submission}\"]"));
        for setting in &settings {
            command.args(["--set", setting]);
        }
        let log = std::fs::File::create(self.data.path().join(format!("second-{service}.log")))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("starting a second {service}"))?;
        tokio::time::timeout(START_DEADLINE, ready(http))
            .await
            .with_context(|| format!("a second {service}"))?;
        Ok(Replica { _child: child, smtp })
    }
}

fn free_addresses() -> Result<[SocketAddr; 4]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // All are held until the last is found, so that they differ.
    let listeners = [listen()?, listen()?, listen()?, listen()?];
    let mut addresses = [SocketAddr::from(([0; 4], 0)); 4];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}

/// Waits until `/readyz` misses nothing.
async fn ready(http: SocketAddr) {
    let ask = async || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.ends_with("\r\n\r\nready\n"))
    };
    while !ask().await.unwrap_or(false) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
