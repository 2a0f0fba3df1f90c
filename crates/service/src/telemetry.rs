//! Logs, metrics and spans of a process.

use std::io::IsTerminal as _;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::Error;
use crate::config::{self, Mistake, Sources};

/// The commented defaults of the section `[telemetry]`.
pub const DEFAULTS: &str = include_str!("telemetry.toml");

/// The section `[telemetry]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How logs are written.
    pub log: Log,
    /// Where spans go by OTLP over gRPC (`http://collector:4317`); empty: nowhere.
    #[serde(deserialize_with = "otlp_endpoint")]
    pub otlp_endpoint: String,
    /// Of the traces that begin here, the part that is exported, 0.0 to 1.0. The caller's choice overrides it.
    #[serde(deserialize_with = "ratio")]
    pub sample: f64,
}

impl Config {
    /// Reads the section; all mistakes at once.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        config::load("telemetry", DEFAULTS, sources)
    }
}

/// How logs are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// For people or for programs.
    pub format: Format,
    /// A filter of tracing-subscriber: `info`, `info,posthorn_queue=debug`.
    #[serde(deserialize_with = "filter")]
    pub level: String,
}

fn otlp_endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    // A URL with a scheme has a host.
    let scheme = url.parse().ok().and_then(|uri: http::Uri| uri.scheme_str().map(str::to_owned));
    if url.is_empty() || scheme.as_deref() == Some("http") {
        return Ok(url);
    }
    Err(D::Error::custom("must be a URL that begins with http://, or empty"))
}

fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(D::Error::custom("must be from 0.0 to 1.0")) }
}

fn filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let filter = String::deserialize(deserializer)?;
    EnvFilter::try_new(&filter).map_err(D::Error::custom)?;
    Ok(filter)
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line a person reads.
    Human,
    /// A JSON object a line.
    Json,
}

/// What [`init`] has set up; dropping it sends what spans are left.
#[derive(Debug)]
pub struct Telemetry {
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
    tracer: SdkTracerProvider,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let _ = self.tracer.shutdown();
    }
}

/// Sets up logs (to standard error), metrics and spans for the whole process; once, within a tokio runtime.
pub fn init(config: &Config, service: &'static str) -> Result<Telemetry, Error> {
    let filter = EnvFilter::try_new(&config.log.level)
        .map_err(|e| Error::Config(format!("telemetry.log.level: {e}")))?;
    let mut provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(format!("posthorn-{service}")).build());
    // Without an exporter spans still carry the caller's context on, but record nothing.
    let mut root = Sampler::AlwaysOff;
    if !config.otlp_endpoint.is_empty() {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&config.otlp_endpoint)
            .build()
            .map_err(|e| Error::Config(format!("telemetry.otlp_endpoint: {e}")))?;
        provider = provider.with_batch_exporter(exporter);
        root = Sampler::TraceIdRatioBased(config.sample);
    }
    let tracer = provider.with_sampler(Sampler::ParentBased(Box::new(root))).build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer.tracer("posthorn"))
        // What each span would cost at every poll, and nobody reads.
        .with_tracked_inactivity(false)
        .with_location(false)
        .with_threads(false)
        .with_context_activation(false)
        // Whatever is logged: the caller's context goes with the message, and spans go where they are wanted.
        .with_filter(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match config.log.format {
        Format::Human => lines.with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let lines = lines.with_filter(filter);
    tracing_subscriber::registry().with(spans).with(lines).try_init().map_err(Error::fatal)?;
    let metrics = PrometheusBuilder::new()
        .set_buckets(&[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
        ])
        .map_err(Error::fatal)?
        .install_recorder()
        .map_err(Error::fatal)?;
    tokio::spawn(upkeep(metrics.clone()));
    Ok(Telemetry { metrics, tracer })
}

/// Puts what histograms were told into their buckets, where else the next scrape would: nobody may scrape.
async fn upkeep(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        metrics.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (name, value, is_right) in [
            ("log.level", "info,posthorn_queue=debug", true),
            ("log.level", "info,,,==", false),
            ("log.format", "xml", false),
            ("otlp_endpoint", "http://collector:4317", true),
            ("otlp_endpoint", "", true),
            ("otlp_endpoint", "banana", false),
            ("otlp_endpoint", "http://", false),
            ("otlp_endpoint", "https://collector:4317", false),
            ("sample", "0", true),
            ("sample", "0.01", true),
            ("sample", "7", false),
            ("sample", "-0.1", false),
            ("sample", "nan", false),
        ] {
            let name = format!("telemetry.{name}");
            let command_line = vec![(name.clone(), value.to_owned())];
            let mistakes = Config::load(&Sources { command_line, ..Sources::default() }).err();
            let told: Vec<_> = mistakes.iter().flatten().map(|mistake| mistake.setting.as_str()).collect();
            let wanted: &[&str] = if is_right { &[] } else { &[&name] };
            assert_eq!(told, wanted, "{name} = {value}");
        }
    }
}
