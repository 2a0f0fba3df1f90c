//! The ports of `posthorn dev`, and the settings that differ from production's.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use posthorn_stores::{Postgres, Redis};

use super::stores;
use crate::services::Service;

/// Every port, moved by the offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    offset: u16,
}

/// The highest of the ports below.
const HIGHEST: u16 = 16379;

/// An attachment of 40 MB has 55 MB in base64. Queue and gRPC take up to 64 MiB.
const LARGEST_MESSAGE: &str = "60MiB";

impl Ports {
    pub(super) fn new(offset: u16) -> Result<Self> {
        HIGHEST
            .checked_add(offset)
            .with_context(|| format!("with --port-offset {offset} ports would pass 65535"))?;
        Ok(Self { offset })
    }

    pub(super) fn postgres(self) -> u16 {
        15432 + self.offset
    }

    pub(super) fn redis(self) -> u16 {
        HIGHEST + self.offset
    }

    fn smtp(self) -> u16 {
        2525 + self.offset
    }

    fn submission(self) -> u16 {
        2587 + self.offset
    }

    fn grpc(self, service: Service) -> u16 {
        self.offset
            + match service {
                Service::Ingress => 7001,
                Service::Queue => 7002,
                Service::Router => 7003,
                Service::LocalDelivery => 7004,
                Service::RemoteRelay => 7005,
            }
    }

    fn http(self, service: Service) -> u16 {
        self.grpc(service) + 1000
    }

    /// The gRPC address of a service.
    pub(super) fn url(self, service: Service) -> String {
        format!("http://127.0.0.1:{}", self.grpc(service))
    }

    /// The settings of development: these ports, the private stores below `data`, loopback destinations allowed,
    /// generous limits.
    pub(super) fn settings(self, data: &Path) -> Result<toml::Table> {
        let port = self.postgres();
        let at = match Postgres::socket_dir(&stores::postgres_dir(data), port) {
            Some(socket) => format!("localhost:{port}/posthorn?host={}", socket.display()),
            None => format!("127.0.0.1:{port}/posthorn"),
        };
        let database = |role: &str| format!("postgres://{role}@{at}");
        let redis = match Redis::socket(&stores::redis_dir(data)) {
            Some(socket) => format!("unix://{}", socket.display()),
            None => format!("redis://127.0.0.1:{}", self.redis()),
        };
        let listen = |service: Service| {
            format!(
                "[{}.listen]\ngrpc = '127.0.0.1:{}'\nhttp = '127.0.0.1:{}'\n",
                service.section(),
                self.grpc(service),
                self.http(service)
            )
        };
        let (smtp, submission) = (self.smtp(), self.submission());
        let [queue, router] = [Service::Queue, Service::Router].map(|service| self.url(service));
        let text = format!(
            "[ingress]\nqueue = '{queue}'\nrouter = '{router}'\n\
             [ingress.smtp]\nlisten = ['127.0.0.1:{smtp}']\n\
             [ingress.submission]\nlisten = ['127.0.0.1:{submission}']\n\
             [ingress.limits]\nconnections_per_client = 1000\nmessage_size = '{LARGEST_MESSAGE}'\n\
             [queue]\nrouter = '{router}'\n[queue.database]\nurl = '{}'\n\
             [queue.redis]\nurl = '{redis}'\n\
             [router]\nqueue = '{queue}'\npostmaster = 'alice@example.test'\n[router.database]\nurl = '{}'\n\
             [local_delivery]\nqueue = '{queue}'\nrouter = '{router}'\n[local_delivery.database]\nurl = '{}'\n\
             [local_delivery.mailbox]\nmax_append = '{LARGEST_MESSAGE}'\n\
             [relay]\nqueue = '{queue}'\nrouter = '{router}'\nallow_private_destinations = true\n\
             own_addresses = ['127.0.0.1:{smtp}', '127.0.0.1:{submission}']\n\
             {}",
            database("posthorn_queue"),
            database("posthorn_router"),
            database("posthorn_local_delivery"),
            Service::ALL.map(listen).concat(),
        );
        text.parse().context("the settings of development")
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SMTP {}, submission {}", self.smtp(), self.submission())?;
        for service in Service::ALL {
            write!(f, ", {service} gRPC {} HTTP {}", self.grpc(service), self.http(service))?;
        }
        write!(f, ", Postgres {}, Redis {}", self.postgres(), self.redis())
    }
}
