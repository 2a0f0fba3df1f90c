//! How the services are reached, and how they refuse.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use posthorn_api::directory::v1::directory_service_client::DirectoryServiceClient;
use posthorn_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use posthorn_api::queue::v1::queue_service_client::QueueServiceClient;
use posthorn_api::submission::v1::submission_service_client::SubmissionServiceClient;
use posthorn_api::trace::v1::trace_service_client::TraceServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;

use super::values::length_of_time;

/// The most that one message of a call holds, either way.
const MESSAGE_LIMIT: usize = 64 << 20;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where the services are")]
pub(super) struct ServicesArgs {
    /// URL of ingress [default: http://127.0.0.1:7001]
    #[arg(long, value_name = "URL", global = true, env = "POSTHORN_INGRESS")]
    ingress: Option<String>,
    /// URL of queue [default: http://127.0.0.1:7002]
    #[arg(long, value_name = "URL", global = true, env = "POSTHORN_QUEUE")]
    queue: Option<String>,
    /// URL of router [default: http://127.0.0.1:7003]
    #[arg(long, value_name = "URL", global = true, env = "POSTHORN_ROUTER")]
    router: Option<String>,
    /// URL of local-delivery [default: http://127.0.0.1:7004]
    #[arg(long, value_name = "URL", global = true, env = "POSTHORN_LOCAL_DELIVERY")]
    local_delivery: Option<String>,
    /// URL of remote-relay [default: http://127.0.0.1:7005]
    #[arg(long, value_name = "URL", global = true, env = "POSTHORN_RELAY")]
    relay: Option<String>,
    /// Added to the default ports: as given to `posthorn dev`
    #[arg(long, value_name = "N", global = true, default_value_t = 0, env = "POSTHORN_PORT_OFFSET")]
    port_offset: u16,
    /// An API key; not needed from trusted networks
    #[arg(long, value_name = "KEY", global = true, env = "POSTHORN_KEY", hide_env_values = true)]
    key: Option<String>,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", global = true, default_value = "60s", value_parser = length_of_time)]
    timeout: Duration,
}

/// One of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Service {
    Ingress,
    Queue,
    Router,
    LocalDelivery,
    RemoteRelay,
}

impl Service {
    pub(super) const ALL: [Self; 5] =
        [Self::Ingress, Self::Queue, Self::Router, Self::LocalDelivery, Self::RemoteRelay];
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Queue => "queue",
            Self::Router => "router",
            Self::LocalDelivery => "local-delivery",
            Self::RemoteRelay => "remote-relay",
        })
    }
}

/// A connection that sends the key along.
pub(super) type Channel = InterceptedService<tonic::transport::Channel, Key>;

/// The `authorization` of every call.
#[derive(Clone, Debug)]
pub(super) struct Key(Option<MetadataValue<Ascii>>);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

/// The services by their URLs; each command connects to those that it needs.
#[derive(Debug)]
pub(super) struct Services {
    args: ServicesArgs,
    key: Key,
}

impl Services {
    pub(super) fn new(args: ServicesArgs) -> Result<Self> {
        let bearer = args.key.as_ref().map(|key| format!("Bearer {key}").parse());
        let mut key: Option<MetadataValue<Ascii>> =
            bearer.transpose().context("the API key has characters that no key can have")?;
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        Ok(Self { args, key: Key(key) })
    }

    pub(super) fn url(&self, service: Service) -> String {
        let (given, port) = match service {
            Service::Ingress => (&self.args.ingress, 7001),
            Service::Queue => (&self.args.queue, 7002),
            Service::Router => (&self.args.router, 7003),
            Service::LocalDelivery => (&self.args.local_delivery, 7004),
            Service::RemoteRelay => (&self.args.relay, 7005),
        };
        let default = || format!("http://127.0.0.1:{}", u32::from(self.args.port_offset) + port);
        given.clone().unwrap_or_else(default)
    }

    async fn connect(&self, service: Service) -> Result<Channel> {
        let url = self.url(service);
        let channel = Endpoint::from_shared(url.clone())
            .with_context(|| format!("{url} is not a valid URL for {service}"))?
            .connect_timeout(self.args.timeout.min(Duration::from_secs(5)))
            .timeout(self.args.timeout)
            .tcp_nodelay(true)
            // A stream may rest for hours; a server that is gone is noticed all the same.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .connect()
            .await
            .map_err(|error| anyhow!("cannot reach {service} at {url}: {}", root(&error)))?;
        Ok(InterceptedService::new(channel, self.key.clone()))
    }

    pub(super) async fn submission(&self) -> Result<SubmissionServiceClient<Channel>> {
        let client = SubmissionServiceClient::new(self.connect(Service::Ingress).await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
    }

    pub(super) async fn queue(&self) -> Result<QueueServiceClient<Channel>> {
        let client = QueueServiceClient::new(self.connect(Service::Queue).await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT))
    }

    pub(super) async fn trace(&self) -> Result<TraceServiceClient<Channel>> {
        let client = TraceServiceClient::new(self.connect(Service::Queue).await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT))
    }

    pub(super) async fn directory(&self) -> Result<DirectoryServiceClient<Channel>> {
        let client = DirectoryServiceClient::new(self.connect(Service::Router).await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
    }

    pub(super) async fn mailbox(&self) -> Result<MailboxServiceClient<Channel>> {
        let client = MailboxServiceClient::new(self.connect(Service::LocalDelivery).await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
    }

    pub(super) async fn health(&self, service: Service) -> Result<HealthClient<Channel>> {
        Ok(HealthClient::new(self.connect(service).await?))
    }
}

/// Calls for page after page, each with the token that the last one gave, until there are no more.
pub(super) async fn each_page(mut page: impl AsyncFnMut(String) -> Result<String>) -> Result<()> {
    let mut token = String::new();
    loop {
        token = page(token).await?;
        if token.is_empty() {
            return Ok(());
        }
    }
}

/// The cause at the bottom: "Connection refused" rather than "transport error".
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

/// Turns a gRPC status into a sentence; other errors stay as they are.
pub(super) fn explain(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Status>() {
        Some(status) => anyhow!("{}", sentence(status)),
        None => error,
    }
}

/// What a service said, with the code that programs go by.
pub(super) fn sentence(status: &Status) -> String {
    let code = format!("{:?}", status.code());
    match status.message() {
        "" if status.code() == Code::Unimplemented => {
            "the service does not know this operation: it may be of an older version".to_owned()
        }
        "" => format!("the service refused without a word: {}", status.code().description()),
        message => format!("{} ({code})", message.trim_end_matches('.')),
    }
}
