//! The commands against services that answer from a script: what is asked, and what is printed.

use std::sync::{Arc, Mutex};

use clap::{CommandFactory as _, Parser};
use posthorn_api::mail::v1 as mail;
use posthorn_api::submission::v1 as submission;
use posthorn_api::submission::v1::submission_service_server::{SubmissionService, SubmissionServiceServer};
use posthorn_api::trace::v1 as trace;
use posthorn_api::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    ctl: Ctl,
}

/// Runs a command, and gives back what it printed, and the error.
async fn run(args: &[&str]) -> (String, Option<String>) {
    let cli = Cli::try_parse_from([&["ctl"], args].concat()).expect("the command line is right");
    let mut out = Vec::new();
    let result = run_to(cli.ctl, &mut out).await;
    let out = String::from_utf8(out).expect("what is printed is UTF-8");
    (out, result.err().map(|error| format!("{error:#}")))
}

/// Serves until the test ends, and says where.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    url
}

fn status(code: u32, enhanced: &str, text: &str) -> Option<mail::Status> {
    Some(mail::Status { code, enhanced: enhanced.into(), text: text.into(), words: 0 })
}

/// Envelope, content, authorization.
type Seen = (mail::Envelope, Vec<u8>, Option<String>);

/// Notes what was submitted, and refuses those whose address begins with "no".
#[derive(Clone, Debug, Default)]
struct Ingress {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Ingress {
    fn take(
        &self,
        envelope: mail::Envelope,
        content: &[u8],
        key: Option<String>,
    ) -> Vec<submission::RecipientResult> {
        let result = |recipient: &mail::Recipient| submission::RecipientResult {
            address: recipient.address.clone(),
            accepted: !recipient.address.starts_with("no"),
            status: status(550, "5.1.1", "no such user"),
        };
        let results = envelope.recipients.iter().map(result).collect();
        self.seen.lock().expect("no test panics with it").push((envelope, content.to_vec(), key));
        results
    }
}

#[tonic::async_trait]
impl SubmissionService for Ingress {
    async fn submit(
        &self,
        request: Request<submission::SubmitRequest>,
    ) -> Result<Response<submission::SubmitResponse>, Status> {
        let key = request.metadata().get("authorization").map(|key| format!("{key:?}"));
        let request = request.into_inner();
        let content = match request.content {
            Some(submission::submit_request::Content::Raw(raw)) => raw.to_vec(),
            Some(submission::submit_request::Content::Message(message)) => message.subject.into_bytes(),
            None => return Err(posthorn_api::error::invalid("content", "is missing")),
        };
        let recipients = self.take(request.envelope.unwrap_or_default(), &content, key);
        let message_id = "0198f2a4-7c3e-7d10-9a53-0c2f7d1be001".to_owned();
        Ok(Response::new(submission::SubmitResponse { message_id, recipients, accepted_at: None }))
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<submission::SubmitStreamRequest>>,
    ) -> Result<Response<submission::SubmitStreamResponse>, Status> {
        use submission::submit_stream_request::Part;
        let (mut parts, mut envelope, mut content) = (request.into_inner(), None, Vec::new());
        while let Some(part) = parts.message().await? {
            match part.part {
                Some(Part::Start(start)) => envelope = start.envelope,
                Some(Part::Chunk(chunk)) => content.extend_from_slice(&chunk),
                None => {}
            }
        }
        let recipients = self.take(envelope.unwrap_or_default(), &content, None);
        let message_id = "streamed".to_owned();
        Ok(Response::new(submission::SubmitStreamResponse { message_id, recipients, accepted_at: None }))
    }
}

/// Knows one message.
struct Queue;

#[tonic::async_trait]
impl TraceService for Queue {
    type WatchEventsStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<trace::WatchEventsResponse, Status>>>;

    async fn trace_message(
        &self,
        request: Request<trace::TraceMessageRequest>,
    ) -> Result<Response<trace::TraceMessageResponse>, Status> {
        let message_id = request.into_inner().message_id;
        if message_id != "known" {
            return Err(Status::not_found("no such message, or it ended too long ago"));
        }
        let event = trace::Event {
            message_id,
            kind: trace::EventKind::Deferred.into(),
            recipient: "bob@example.net".into(),
            attempt: 1,
            status: status(451, "4.7.1", "Greylisted"),
            ..Default::default()
        };
        let sender = "alice@example.test".to_owned();
        let events = vec![event];
        Ok(Response::new(trace::TraceMessageResponse { events, sender, pending: 1, ..Default::default() }))
    }

    async fn watch_events(
        &self,
        _: Request<trace::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        Err(Status::unavailable("the queue is stopping"))
    }
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn contradictions_and_gaps_are_refused() {
    for args in [
        "",
        "queue hold",
        "queue hold an-id --state held",
        "send --from a@b --to c@d",
        "send --from a@b --text hi",
        "send --from a@b --to c@d message.eml --subject s",
        "account update a@b --password x --no-password",
        "mailbox flag a@b 1",
        "key create",
    ] {
        let args = std::iter::once("ctl").chain(args.split_whitespace());
        let refused = Cli::try_parse_from(args.clone()).map(|_| ()).map_err(|error| error.exit_code());
        assert_eq!(refused, Err(2), "{:?}", args.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn send_prints_the_id_and_says_who_was_refused() {
    let ingress = Ingress::default();
    let url =
        serve(tonic::transport::Server::builder().add_service(SubmissionServiceServer::new(ingress.clone())))
            .await;
    let args = ["send", "--ingress", &url, "--key", "secret", "--from", "Alice <alice@example.test>", "--to"];
    let (out, error) =
        run(&[&args[..], &["bob@example.test", "--subject", "hi", "--text", "x"]].concat()).await;
    assert_eq!((out.as_str(), error), ("0198f2a4-7c3e-7d10-9a53-0c2f7d1be001\n", None));
    let (out, error) = run(&[&args[..], &["nobody@example.test", "--text", "x", "--json"]].concat()).await;
    assert!(out.starts_with("{\"message_id\":\"0198f2a4-") && out.ends_with("}\n"), "{out}");
    assert_eq!(error.as_deref(), Some("not accepted for nobody@example.test: 550 5.1.1 no such user"));

    let seen = ingress.seen.lock().expect("no test panics with it");
    let (envelope, subject, key) = &seen[0];
    assert_eq!((envelope.sender.as_str(), subject.as_slice()), ("alice@example.test", &b"hi"[..]));
    assert!(key.is_some());
}

#[tokio::test]
async fn a_large_file_is_streamed() {
    let ingress = Ingress::default();
    let url =
        serve(tonic::transport::Server::builder().add_service(SubmissionServiceServer::new(ingress.clone())))
            .await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let content = format!("Subject: large\r\n\r\n{}\r\n", "ü".repeat(1 << 20));
    std::fs::write(file.path(), &content).expect("it is written");
    let path = file.path().to_str().expect("a path of ASCII");
    let (out, error) =
        run(&["send", "--ingress", &url, "--from", "<>", "--to", "bob@example.test", path]).await;
    assert_eq!((out.as_str(), error), ("streamed\n", None));
    let seen = ingress.seen.lock().expect("no test panics with it");
    let (envelope, streamed, _) = &seen[0];
    assert!(streamed == content.as_bytes(), "the bytes arrive as they are");
    assert_eq!((envelope.sender.as_str(), envelope.body()), ("", mail::Body::EightBitMime));
    assert!(!envelope.smtputf8);
}

#[tokio::test]
async fn a_trace_is_a_time_line_or_json() {
    let url = serve(tonic::transport::Server::builder().add_service(TraceServiceServer::new(Queue))).await;
    let (out, error) = run(&["trace", "known", "--queue", &url]).await;
    assert_eq!(error, None);
    assert_eq!(
        out,
        "message known from alice@example.test\n\
         -                            deferred   bob@example.net (attempt 1): 451 4.7.1 Greylisted\n\
         1 recipient has not ended\n"
    );
    let (out, _) = run(&["trace", "known", "--queue", &url, "--json"]).await;
    assert!(out.starts_with("{\"at\":null,\"message_id\":\"known\",\"kind\":\"deferred\""), "{out}");
    let (out, error) = run(&["trace", "unknown", "--queue", &url]).await;
    assert_eq!(
        (out.as_str(), error.as_deref()),
        ("", Some("no such message, or it ended too long ago (NotFound)"))
    );
    let (_, error) = run(&["events", "--queue", &url]).await;
    assert_eq!(error.as_deref(), Some("the queue is stopping (Unavailable)"));
}

#[tokio::test]
async fn health_fails_unless_all_serve() {
    let (reporter, health) = tonic_health::server::health_reporter();
    let url = serve(tonic::transport::Server::builder().add_service(health)).await;
    let (out, error) = run(&["health", "--service", "queue", "--queue", &url, "--json"]).await;
    assert_eq!(
        out,
        format!("{{\"service\":\"queue\",\"url\":\"{url}\",\"serving\":true,\"detail\":\"\"}}\n")
    );
    assert_eq!(error, None);
    reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let (_, error) = run(&["health", "--service", "queue", "--queue", &url]).await;
    assert_eq!(error.as_deref(), Some("not serving: queue"));
}
