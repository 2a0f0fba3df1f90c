//! Values as they are typed and as they are printed.

use std::time::Duration;

use bytesize::ByteSize;
use posthorn_api::mail::v1 as wire;
use prost_types::Timestamp;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `500ms`, `30s`, `1h 30m`.
pub(super) fn length_of_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// `1GiB`, `500 MB`, or a number of bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(|size| size.as_u64())
}

/// A point in time by RFC 3339, such as `2026-11-23T08:00:00Z`.
pub(super) fn point_in_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "a time is as in 2026-11-23T08:00:00Z (RFC 3339)".to_owned())
}

/// A point in time of the wire, by RFC 3339 in UTC, to the millisecond.
pub(super) fn rfc3339(at: Option<Timestamp>) -> Option<String> {
    let at = posthorn_api::time_of(at?)?;
    at.replace_nanosecond(at.nanosecond() / 1_000_000 * 1_000_000).ok()?.format(&Rfc3339).ok()
}

/// A length of time to a person: to the second once it is longer than that, to the millisecond before.
pub(super) fn rounded(length: Duration) -> String {
    let length = match length.as_secs() {
        0 => Duration::from_millis(length.subsec_millis().into()),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(length).to_string()
}

/// What a server said.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    code: u32,
    enhanced: String,
    text: String,
}

impl From<wire::Status> for Status {
    fn from(status: wire::Status) -> Self {
        Self { code: status.code, enhanced: status.enhanced, text: status.text }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.code, self.enhanced, self.text)
    }
}

/// A server that was talked to.
#[derive(Debug, Serialize)]
pub(super) struct Server {
    host: String,
    address: String,
    tls: String,
}

impl From<wire::RemoteServer> for Server {
    fn from(server: wire::RemoteServer) -> Self {
        Self { host: server.host, address: server.address, tls: server.tls }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.host, self.address)?;
        if self.tls.is_empty() { Ok(()) } else { write!(f, " over {}", self.tls) }
    }
}

/// Who handed a message in.
#[derive(Debug, Serialize)]
pub(super) struct Origin {
    protocol: String,
    client_address: String,
    helo: String,
    authenticated_as: String,
    tenant_id: String,
    server_address: String,
}

impl From<wire::Origin> for Origin {
    fn from(origin: wire::Origin) -> Self {
        Self {
            protocol: origin.protocol,
            client_address: origin.client_address,
            helo: origin.helo,
            authenticated_as: origin.authenticated_as,
            tenant_id: origin.tenant_id,
            server_address: origin.server_address,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.client_address.as_str() {
            "" => write!(f, "from Posthorn itself")?,
            address => write!(f, "from {address}")?,
        }
        if !self.helo.is_empty() {
            write!(f, " ({})", self.helo)?;
        }
        if !self.protocol.is_empty() {
            write!(f, " by {}", self.protocol)?;
        }
        if !self.authenticated_as.is_empty() {
            write!(f, " as {}", self.authenticated_as)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_type_them() {
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("1500"), Ok(1500));
        assert!(size("many").is_err());
        assert_eq!(length_of_time("1h 30m"), Ok(Duration::from_secs(5400)));
        let at = point_in_time("2026-11-23T09:00:00+01:00").unwrap();
        assert_eq!(rfc3339(Some(posthorn_api::timestamp(at))).as_deref(), Some("2026-11-23T08:00:00Z"));
        assert!(point_in_time("tomorrow").is_err());
    }
}
