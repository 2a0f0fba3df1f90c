//! gRPC reflection tells of each port what can be called there, and describes it.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const LIMIT: Duration = Duration::from_secs(20);

/// Every service on the command line, with its section and what it serves.
const SERVED: [(&str, &str, &[&str]); 5] = [
    ("ingress", "ingress", &["posthorn.submission.v1.SubmissionService"]),
    (
        "queue",
        "queue",
        &[
            "posthorn.queue.v1.QueueService",
            "posthorn.spool.v1.SpoolService",
            "posthorn.trace.v1.TraceService",
            "posthorn.work.v1.WorkService",
        ],
    ),
    ("router", "router", &["posthorn.directory.v1.DirectoryService", "posthorn.routing.v1.RoutingService"]),
    ("local-delivery", "local_delivery", &["posthorn.mailbox.v1.MailboxService"]),
    ("remote-relay", "relay", &[]),
];

const EVERYWHERE: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

#[tokio::test]
async fn a_port_lists_what_it_serves_and_no_more() {
    for (service, section, served) in SERVED {
        let grpc = free();
        let _process = start(service, section, grpc);
        let mut reflection = ServerReflectionClient::new(connect(grpc).await);
        let Some(MessageResponse::ListServicesResponse(list)) =
            ask(&mut reflection, MessageRequest::ListServices(String::new())).await
        else {
            panic!("{service} lists nothing");
        };
        let mut listed: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        listed.sort();
        assert_eq!(listed, [&EVERYWHERE[..], served].concat(), "{service}");
        for name in listed {
            let described = ask(&mut reflection, MessageRequest::FileContainingSymbol(name.clone())).await;
            let is_described = matches!(described, Some(MessageResponse::FileDescriptorResponse(_)));
            assert!(is_described, "{service}: {name}: {described:?}");
        }
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A service all of whose peers and stores are away.
fn start(service: &str, section: &str, grpc: SocketAddr) -> Child {
    let mut settings =
        vec![format!("{section}.listen.grpc={grpc}"), format!("{section}.listen.http={}", free())];
    if section == "ingress" {
        settings.extend(["smtp", "submission"].map(|door| format!("ingress.{door}.listen=[]")));
    }
    if ["queue", "router", "local_delivery"].contains(&section) {
        settings.push(format!("{section}.database.url=postgres://nobody@127.0.0.1:1/nothing"));
    }
    if section == "queue" {
        settings.push("queue.redis.url=redis://127.0.0.1:1".to_owned());
    }
    Command::new(env!("CARGO_BIN_EXE_posthorn"))
        .arg(service)
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn connect(grpc: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{grpc}")).unwrap();
    let connected = async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, connected).await.unwrap()
}

async fn ask(
    reflection: &mut ServerReflectionClient<Channel>,
    question: MessageRequest,
) -> Option<MessageResponse> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer: Option<ServerReflectionResponse> = answers.into_inner().message().await.unwrap();
    answer?.message_response
}
