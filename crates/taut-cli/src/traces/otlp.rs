//! The way of spans to a collector: OTLP over HTTP, in batches, from a thread of its own.

use std::time::Duration;

use opentelemetry::{Key, KeyValue, global};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use taut_server::otel::CollectorClient;

use super::Collector;

/// Traces on their way. When it is dropped, what has not been sent yet is, as far as that takes no longer than [`LONGEST_FLUSH`].
#[derive(Debug)]
pub(crate) struct Provider(SdkTracerProvider);

impl Provider {
    /// Begins to send. What waits is bounded by `OTEL_BSP_MAX_QUEUE_SIZE`; what finds no room there is lost, and nobody waits.
    pub(super) fn start(collector: &Collector, environment: &impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let Collector { url, within } = collector;
        let client = CollectorClient::new(*within).map_err(|error| error.to_string())?;
        let exporter = SpanExporter::builder().with_http().with_http_client(client);
        let exporter = exporter.with_protocol(Protocol::HttpBinary).with_endpoint(url).with_timeout(*within).build();
        let exporter = exporter.map_err(|error| error.to_string())?;
        let resource = resource();
        let service = resource.get(&SERVICE_NAME).map(|name| name.to_string()).unwrap_or_default();
        let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_tracer_provider(provider.clone());
        let sampler = environment("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_always_on".to_owned());
        // A query may hold a secret.
        let collector = url.split('?').next().unwrap_or_default();
        tracing::info!(collector, service, sampler, "traces are sent");
        Ok(Self(provider))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LONGEST_FLUSH) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Who sends: as the environment says, and otherwise `taut`.
fn resource() -> Resource {
    let version = || KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version()).build();
    let is_named = resource.get(&SERVICE_NAME).is_some_and(|name| !name.as_str().starts_with(UNNAMED));
    if is_named { resource } else { Resource::builder().with_attribute(version()).with_service_name("taut").build() }
}

const SERVICE_NAME: Key = Key::from_static_str("service.name");

/// What the SDK calls those that nobody has named.
const UNNAMED: &str = "unknown_service";

/// How long the end of the program may wait for the collector.
const LONGEST_FLUSH: Duration = Duration::from_secs(5);
