//! The W3C trace context across calls and across the queue.

use std::collections::HashMap;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The `traceparent` of the current span, to be kept with a message; empty when there is none.
pub fn current_traceparent() -> String {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove("traceparent").unwrap_or_default()
}

/// Links `span` to the trace that a message came with: an attempt is not a part of the call that handed the message
/// in, which has long been answered, but follows from it.
pub fn link(span: &Span, traceparent: &str) {
    // The sampled flag is the last bit: what nobody records need not be linked to.
    if !traceparent.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']) {
        return;
    }
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    span.add_link(context.span().span_context().clone());
}

/// The span of a call that comes in: a child of the caller's.
pub(crate) fn server_span(request: &http::Request<()>) -> Span {
    let span = tracing::info_span!("grpc", otel.kind = "server", rpc = request.uri().path());
    if request.headers().contains_key("traceparent") {
        let context = TraceContextPropagator::new().extract(&Headers(request.headers()));
        // Fails only where no OpenTelemetry layer is installed (in tests).
        let _ = span.set_parent(context);
    }
    span
}

/// Puts the current span's trace context into every call that goes out.
#[derive(Clone, Copy, Debug)]
pub struct Inject;

impl Interceptor for Inject {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let context = Span::current().context();
        TraceContextPropagator::new().inject_context(&context, &mut Metadata(request.metadata_mut()));
        Ok(request)
    }
}

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}
