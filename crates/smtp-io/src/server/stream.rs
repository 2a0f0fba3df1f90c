//! The connection's bytes, in the clear or under TLS.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake failed half-way.
    Gone,
}

impl Stream {
    /// Reads what is there into the spare room of `buffer`; 0 is the end.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
            Self::Gone => Ok(0),
        }
    }

    /// Writes all, in one go if the socket takes it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The server's side of the handshake.
    pub(super) async fn start_tls(&mut self, acceptor: &TlsAcceptor) -> io::Result<()> {
        match std::mem::replace(self, Self::Gone) {
            Self::Plain(stream) => *self = Self::Tls(Box::new(acceptor.accept(stream).await?)),
            other => *self = other,
        }
        Ok(())
    }

    /// Says that nothing more will be written, and reads past what the client still sends: a socket that is closed
    /// with unread bytes takes the last reply back (RFC 1122 §4.2.2.13).
    pub(super) async fn close(&mut self, patience: Duration) {
        let goodbye = async {
            match self {
                Self::Plain(stream) => stream.shutdown().await?,
                Self::Tls(stream) => stream.shutdown().await?,
                Self::Gone => {}
            }
            let mut rest = BytesMut::with_capacity(4 << 10);
            while self.read(&mut rest).await? > 0 {
                rest.clear();
            }
            io::Result::Ok(())
        };
        // Whether the client hears it is its own business.
        let _ = tokio::time::timeout(patience, goodbye).await;
    }

    /// TLS version and cipher, such as `TLSv1_3 TLS13_AES_256_GCM_SHA384`; `None` in the clear.
    pub(super) fn tls(&self) -> Option<String> {
        let Self::Tls(stream) = self else { return None };
        let (_, connection) = stream.get_ref();
        let version = connection.protocol_version()?.as_str()?;
        let suite = connection.negotiated_cipher_suite()?.suite();
        Some(format!("{version} {}", suite.as_str().unwrap_or("unknown")))
    }
}
