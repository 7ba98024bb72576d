//! `GET /metrics`: what there is and what has happened, for Prometheus.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use subtle::ConstantTimeEq;
use taut_proto::handshake::bearer_credentials;

use super::console::Login;
use super::exposition::Exposition;
use super::listener::{self, Listener};
use super::{Context, asked};
use crate::apps::App;
use crate::http::answer::ApiError;
use crate::metric::Kind;
use crate::query::{BUCKETS, EventLoops, Histogram, Statistics, Traffic};
use crate::webhooks::{self, Webhooks};

/// `GET /metrics`: shows the metrics to whoever may see them.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(crate) async fn show(
    State(context): State<Arc<Context>>,
    Extension(listener): Extension<Listener>,
    request: Request,
) -> Result<Response, ApiError> {
    check_access(&context, listener, &request)?;
    let statistics = asked(context.node().statistics()).await?;
    let mut page = Exposition::default();
    write_statistics(&mut page, &statistics, &context.node().apps().all());
    context.traffic().write(&mut page);
    write_webhooks(&mut page, context.webhooks());
    write_process(&mut page, context.started.elapsed());
    Ok(([(CONTENT_TYPE, TEXT)], page.into_text()).into_response())
}

/// A token, where one is set, opens the metrics on every listener. Without one they are open on listeners of their own, and nowhere else.
fn check_access(context: &Context, listener: Listener, request: &Request) -> Result<(), ApiError> {
    if let Some(token) = &context.metrics_token {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| str::from_utf8(value.as_bytes()).ok());
        let shown = header.and_then(bearer_credentials);
        // In constant time: how long it takes must not tell how much of it was right.
        let is_right = shown.is_some_and(|shown| token.reveal().as_bytes().ct_eq(shown.as_bytes()).into());
        return if is_right { Ok(()) } else { Err(unauthorized()) };
    }
    match listener {
        Listener::Metrics => Ok(()),
        Listener::Console if context.console_login(listener) == Some(Login::Nothing) => listener::check_host(request),
        Listener::Console | Listener::Clients => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "The metrics are not open here: start the server with metrics-listen, which serves them on a listener of their own, or with metrics-token, \
             which opens them to who has it.",
        )),
    }
}

fn unauthorized() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "The metrics require the bearer token that the server was started with (metrics-token).",
    )
    .challenge("Bearer")
}

fn write_statistics(page: &mut Exposition, statistics: &Statistics, apps: &[Arc<App>]) {
    page.begin("taut_connections", Kind::Gauge, "Open connections of clients.");
    for app in apps {
        page.sample(&[("app", app.id())], app.connections());
    }
    for metric in Traffic::METRICS {
        page.begin(metric.name, metric.kind, metric.help);
        for app in apps {
            // An app that nobody has used yet has not been counted.
            page.sample(&[("app", app.id())], statistics.apps.get(app.index().get()).map_or(0, metric.value));
        }
    }
    page.singles(EventLoops::METRICS, &statistics.event_loops);
    page.begin(
        "taut_delivery_duration_seconds",
        Kind::Histogram,
        "Time from an event's publisher to the queues of the sockets that it goes to.",
    );
    let Histogram { counts, sum } = &statistics.latency;
    let bounds: [f64; BUCKETS - 1] = std::array::from_fn(|bucket| Duration::from_micros(2 << bucket).as_secs_f64());
    page.histogram(&[], &bounds, counts, Duration::from_micros(*sum).as_secs_f64());
}

/// What waits, for how long, and what has happened since the start.
fn write_webhooks(page: &mut Exposition, webhooks: &Webhooks) {
    let statistics = webhooks.statistics();
    let metrics = webhooks::Statistics::METRICS;
    let (gauges, counters) = metrics.split_at(metrics.partition_point(|metric| matches!(metric.kind, Kind::Gauge)));
    page.singles(gauges, &statistics);
    let oldest = webhooks.oldest().unwrap_or_default().as_secs_f64();
    page.single("taut_webhooks_oldest_seconds", Kind::Gauge, "How long the oldest of those waits.", oldest);
    page.singles(counters, &statistics);
}

/// Under the names that Prometheus' own clients use, where there is one.
fn write_process(page: &mut Exposition, uptime: Duration) {
    page.begin("taut_build_info", Kind::Gauge, "Always 1; the version is in the label.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.single("taut_uptime_seconds", Kind::Gauge, "Time since the server was started.", uptime.as_secs_f64());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = now.saturating_sub(uptime).as_secs_f64();
    page.single("process_start_time_seconds", Kind::Gauge, "When the server was started, since 1970.", start);
    // Read from memory by the kernel: nothing waits here. Other systems than Linux have no such file.
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_memory) {
        page.single("process_resident_memory_bytes", Kind::Gauge, "Memory that the process takes.", bytes);
    }
    if let Some(count) = open_descriptors() {
        page.single("process_open_fds", Kind::Gauge, "File descriptors that are open: sockets, most of them.", count);
    }
    if let Some(most) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(most_descriptors) {
        page.single("process_max_fds", Kind::Gauge, "File descriptors that may be open.", most);
    }
}

/// Bytes, from Linux' `/proc/self/status`.
fn resident_memory(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// Linux says how many there are as the size of a folder, since 6.2; before that they are counted.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        0 => Some(fs::read_dir(FOLDER).ok()?.count() as u64),
        count => Some(count),
    }
}

/// The soft limit, from Linux' `/proc/self/limits`.
fn most_descriptors(limits: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_whitespace().next()?.parse().ok()
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_read_in_kibibytes() {
        assert_eq!(resident_memory("Name:\ttaut\nVmPeak:\t  9 kB\nVmRSS:\t   1234 kB\nThreads:\t3\n"), Some(1_263_616));
        assert_eq!(resident_memory("VmRSS:\tmuch\n"), None);
        assert_eq!(resident_memory(""), None);
    }

    #[test]
    fn descriptors_are_counted_and_their_soft_limit_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(most_descriptors(limits), Some(1024));
        assert_eq!(
            most_descriptors("Max open files            unlimited            unlimited            files\n"),
            None
        );
        assert_eq!(most_descriptors(""), None);
        #[cfg(target_os = "linux")]
        {
            let before = open_descriptors().expect("a folder");
            let held: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").expect("a file")).collect();
            // Other tests open and close some as well.
            assert!(open_descriptors().expect("a folder") >= before.saturating_sub(50) + 50, "{before}");
            drop(held);
        }
    }
}
