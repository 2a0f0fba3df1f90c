//! Who talks to whom, and where the proxy between them stands.

use std::net::{Ipv4Addr, SocketAddr};

use super::{REPLICAS, Service};

/// Two parties with a proxy between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says who talks to whom")]
pub enum Link {
    IngressQueue,
    IngressRouter,
    WorkersQueue,
    WorkersRouter,
    QueuePostgres,
    QueueRedis,
    RouterPostgres,
    LocalDeliveryPostgres,
    /// To the replicas of ingress, for the test's SMTP clients.
    Clients,
    /// To the replicas of ingress, for programs that submit.
    Programs,
    /// To the replicas of the queue, for operators.
    Operators,
    /// To the replicas of local-delivery, for who reads mailboxes.
    Readers,
}

impl Link {
    /// All.
    pub const ALL: [Self; 12] = [
        Self::IngressQueue,
        Self::IngressRouter,
        Self::WorkersQueue,
        Self::WorkersRouter,
        Self::QueuePostgres,
        Self::QueueRedis,
        Self::RouterPostgres,
        Self::LocalDeliveryPostgres,
        Self::Clients,
        Self::Programs,
        Self::Operators,
        Self::Readers,
    ];

    /// Those within the system.
    pub const WITHIN: &[Self] = Self::ALL.split_at(8).0;

    /// Where its proxy listens.
    pub(super) fn address(self, at: impl Fn(u8, u16) -> SocketAddr) -> SocketAddr {
        at(100 + self as u8, self.port())
    }

    fn port(self) -> u16 {
        match self {
            Self::Clients => 2525,
            Self::Programs => 7001,
            Self::IngressQueue | Self::WorkersQueue | Self::Operators => 7002,
            Self::IngressRouter | Self::WorkersRouter => 7003,
            Self::Readers => 7004,
            Self::QueuePostgres | Self::RouterPostgres | Self::LocalDeliveryPostgres => 5432,
            Self::QueueRedis => 6379,
        }
    }

    /// Where its proxy leads.
    pub(super) fn upstreams(
        self,
        postgres: u16,
        redis: u16,
        at: impl Fn(u8, u16) -> SocketAddr,
    ) -> Vec<SocketAddr> {
        let store = |port| vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
        let replicas =
            |service: Service| (0..REPLICAS).map(|number| at(service.host(number), self.port())).collect();
        match self {
            Self::QueuePostgres | Self::RouterPostgres | Self::LocalDeliveryPostgres => store(postgres),
            Self::QueueRedis => store(redis),
            Self::IngressQueue | Self::WorkersQueue | Self::Operators => replicas(Service::Queue),
            Self::IngressRouter | Self::WorkersRouter => replicas(Service::Router),
            Self::Clients | Self::Programs => replicas(Service::Ingress),
            Self::Readers => replicas(Service::LocalDelivery),
        }
    }
}
