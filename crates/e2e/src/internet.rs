//! The servers of others, and the DNS that names them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;
use posthorn_testkit::dns::Dns;
use posthorn_testkit::proxy::Proxy;
use posthorn_testkit::smtp_server::{Script, SmtpServer};

use crate::Options;

/// An internet of the test's own on loopback: each host has an address of its own, all listen on the same port.
#[derive(Debug)]
pub struct Internet {
    /// What the names are.
    pub dns: Dns,
    port: u16,
    hosts: AtomicU8,
}

impl Internet {
    /// One without any hosts.
    pub async fn start() -> Result<Self> {
        // Free on every address, so on all of loopback's.
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
        Ok(Self { dns: Dns::start().await, port, hosts: AtomicU8::new(1) })
    }

    /// Lets a Posthorn live in it.
    pub fn options(&self) -> Options {
        Options::default()
            .set(format!(r#"router.dns.servers=["{}"]"#, self.dns.address()))
            .set(format!("relay.port={}", self.port))
    }

    /// The port on which its mail servers listen.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A host that the DNS knows and on which nothing listens; its address.
    pub fn host(&self, name: &str) -> Ipv4Addr {
        let address = Ipv4Addr::new(127, 0, 1, self.hosts.fetch_add(1, Ordering::Relaxed));
        self.dns.a(name, address);
        address
    }

    /// A host with a mail server that does as told.
    pub async fn server(&self, name: &str, told: impl FnOnce(Script) -> Script) -> Result<SmtpServer> {
        let address = SocketAddr::from((self.host(name), self.port));
        SmtpServer::start(address, told(Script::named(name))).await
    }

    /// A domain with one MX, `mx.` in it, that is met behind a proxy.
    pub async fn domain_behind_proxy(
        &self,
        domain: &str,
        told: impl FnOnce(Script) -> Script,
    ) -> Result<(SmtpServer, Proxy)> {
        let host = format!("mx.{domain}");
        self.dns.mx(domain, 10, &host);
        let server = self.server(&format!("behind.{domain}"), told).await?;
        let address = SocketAddr::from((self.host(&host), self.port));
        let proxy = Proxy::start(address, vec![server.address()]).await?;
        Ok((server, proxy))
    }

    /// A domain with one MX, `mx.` in it.
    pub async fn domain(&self, domain: &str, told: impl FnOnce(Script) -> Script) -> Result<SmtpServer> {
        let host = format!("mx.{domain}");
        self.dns.mx(domain, 10, &host);
        self.server(&host, told).await
    }
}
