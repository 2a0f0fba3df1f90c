//! `/readyz` and the health service: needs decide, wants are only told.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::SocketAddr;
use std::time::Duration;

use posthorn_service::{Grpc, Listen, Process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus::{NotServing, Serving};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const LIMIT: Duration = Duration::from_secs(20);

async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// The status and the body of `/readyz`.
async fn readyz(http: SocketAddr) -> (String, String) {
    let mut stream = TcpStream::connect(http).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn says_what_it_waits_for() {
    let (grpc, http) = (free_port().await, free_port().await);
    let process = Process::new(CancellationToken::new(), None);
    let (postgres, redis) = (process.ready.need("postgres"), process.ready.want("redis"));
    let served = tokio::spawn({
        let process = process.clone();
        let listen = Listen { grpc, http, drain: LIMIT };
        async move { Grpc::new(&[]).serve(&listen, &process).await }
    });
    let up = async || {
        while TcpStream::connect(http).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, up()).await.unwrap();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{grpc}")).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    let request = HealthCheckRequest { service: String::new() };
    let mut statuses = health.watch(request).await.unwrap().into_inner();
    let mut status = async || {
        let next = tokio::time::timeout(LIMIT, statuses.message()).await;
        next.expect("it says so in time").unwrap().unwrap().status
    };

    assert_eq!(status().await, NotServing as i32);
    let waits = "waiting for postgres: not connected yet\nwaiting for redis: not connected yet\n";
    assert_eq!(readyz(http).await, ("503".to_owned(), waits.to_owned()));
    postgres.met();
    assert_eq!(status().await, Serving as i32);
    let waits = "ready\nwaiting for redis: not connected yet\n";
    assert_eq!(readyz(http).await, ("200".to_owned(), waits.to_owned()));
    redis.met();
    process.ready.complete().await;
    assert_eq!(readyz(http).await, ("200".to_owned(), "ready\n".to_owned()));
    redis.missing("it is gone");
    let waits = "ready\nwaiting for redis: it is gone\n";
    assert_eq!(readyz(http).await, ("200".to_owned(), waits.to_owned()));
    postgres.missing("it is gone, too");
    assert_eq!(status().await, NotServing as i32, "and not before");
    process.shutdown.cancel();
    tokio::time::timeout(LIMIT, served).await.unwrap().unwrap().unwrap();
}
