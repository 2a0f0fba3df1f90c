//! Who calls.

use std::net::{Ipv4Addr, SocketAddr};

use posthorn_api::key::{self, Scope};
use tonic::{Request, Status};

use super::Submission;
use crate::incoming::Source;

/// A caller who may submit.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) source: Source,
    /// Within which its idempotency keys are its own.
    pub(super) key_scope: String,
}

impl Submission {
    /// A program shows an API key, or calls from a trusted network. Both may send to other domains.
    pub(super) async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let unknown = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let client = request.remote_addr().unwrap_or(unknown);
        let mut source = Source {
            protocol: "GRPC",
            client: SocketAddr::new(client.ip().to_canonical(), client.port()),
            server: request.local_addr().unwrap_or(unknown),
            helo: None,
            tls: None,
            key: None,
        };
        if let Some(key) = key::bearer(request.metadata())? {
            let key = key::verified(self.admission.verify_key(key).await)?;
            Scope::Submit.of(&key.scopes)?;
            let key_scope = format!("tenant:{}", key.tenant_id);
            source.key = Some((key.key_id, key.tenant_id));
            return Ok(Caller { source, key_scope });
        }
        if self.trusted.have(request.remote_addr()) {
            return Ok(Caller { source, key_scope: "trusted".into() });
        }
        Err(key::missing())
    }
}
