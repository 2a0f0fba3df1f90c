//! The listener and its connections over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use posthorn_mail::{EnhancedStatus, Status};
use posthorn_smtp::server::Settings;
use posthorn_smtp_io::server::{Connection, Event, Gate, Listener};
use rustls::crypto::ring::default_provider;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// A server that takes all, and a client's trust in it.
struct Server {
    address: SocketAddr,
    trust: Arc<rustls::ClientConfig>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

/// Says of each message how long it was, and how it came.
async fn take_all(mut connection: Connection) {
    let mut size = 0;
    while let Some(event) = connection.next().await {
        match event {
            Event::Verify { recipients, .. } => connection.verified(recipients.iter().map(|_| Ok(()))),
            Event::Begin(_) | Event::Abort => size = 0,
            Event::Chunk(piece) => size += piece.len(),
            Event::End { .. } => {
                let how = connection.tls().unwrap_or_else(|| "clear".into());
                let text = format!("{size} octets, {how}");
                connection.finished(&Status::new(250, EnhancedStatus::new(2, 0, 0), text));
            }
        }
    }
}

fn start() -> Server {
    let certified = rcgen::generate_simple_self_signed(["mx.example.test".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let trust = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let settings = Settings::new("mx.example.test", "postmaster@example.test".parse().unwrap());
    let here = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(here, settings, Gate::new(10, 10), Some(Arc::new(tls))).unwrap();
    let address = listener.address().unwrap();
    let shutdown = CancellationToken::new();
    let drain = Duration::from_secs(10);
    let running = tokio::spawn(listener.serve(shutdown.clone(), drain, take_all));
    Server { address, trust: Arc::new(trust), shutdown, running }
}

/// Sends, and reads as many lines as are wanted.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, send: &str, lines: usize) -> Vec<String> {
    stream.write_all(send.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while got.len() < lines {
        let mut line = Vec::new();
        // Octet by octet, so that nothing of a handshake is read before its time.
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        got.push(String::from_utf8(line).unwrap().trim_end().to_owned());
    }
    got
}

const MESSAGE: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nHi\r\n.\r\n";

#[tokio::test]
async fn starttls_begins_the_session_anew() {
    let server = start();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let lines = talk(&mut stream, "EHLO client.example\r\n", 12).await;
    assert!(lines.contains(&"250-STARTTLS".to_owned()), "{lines:?}");
    assert!(talk(&mut stream, MESSAGE, 4).await[3].ends_with("4 octets, clear"));
    assert_eq!(talk(&mut stream, "STARTTLS\r\n", 1).await, ["220 2.0.0 Ready to start TLS"]);
    let name = "mx.example.test".try_into().unwrap();
    let mut stream = TlsConnector::from(server.trust).connect(name, stream).await.unwrap();
    assert_eq!(talk(&mut stream, "MAIL FROM:<a@b>\r\n", 1).await, ["503 5.5.1 Send EHLO first"]);
    let lines = talk(&mut stream, "EHLO client.example\r\n", 10).await;
    assert!(!lines.contains(&"250-STARTTLS".to_owned()), "{lines:?}");
    let reply = &talk(&mut stream, MESSAGE, 4).await[3];
    assert!(reply.starts_with("250 2.0.0 4 octets, TLSv1_3 TLS13_"), "{reply}");
    server.shutdown.cancel();
    assert!(talk(&mut stream, "", 1).await[0].starts_with("421 4.3.2"));
    stream.shutdown().await.unwrap();
    server.running.await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_no_handshake_is_let_go() {
    let server = start();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    talk(&mut stream, "EHLO client.example\r\n", 12).await;
    talk(&mut stream, "STARTTLS\r\n", 1).await;
    stream.write_all(b"MAIL FROM:<a@b>\r\n").await.unwrap();
    let mut rest = Vec::new();
    // A TLS alert may come, and a reset; no reply of SMTP.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.windows(3).any(|window| window == b"250"));
}

#[tokio::test]
async fn the_last_reply_arrives_though_more_was_sent() {
    let server = start();
    let mut stream = BufReader::new(TcpStream::connect(server.address).await.unwrap());
    let wrong = "WRONG\r\n".repeat(10_000);
    stream.write_all(wrong.as_bytes()).await.unwrap();
    let mut lines = Vec::new();
    let mut line = String::new();
    while stream.read_line(&mut line).await.unwrap() > 0 {
        lines.push(std::mem::take(&mut line));
    }
    assert_eq!(lines.len(), 22, "the greeting, twenty refusals, and the end");
    assert!(lines[21].starts_with("421 4.7.0"));
}
