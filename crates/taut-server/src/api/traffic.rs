//! Every request is counted, timed and told to the log; what it carries is not, since that may be secret.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};
use tracing::{Instrument, field};

use super::Context;
use super::exposition::{Exposition, Kind};
use crate::trace::Span;

/// Counts and times a request, and lends it a span of its own.
///
/// # Cancel safety
/// A request whose client has gone is dropped and not counted.
pub(crate) async fn observe(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let number = context.traffic().began.fetch_add(1, Ordering::Relaxed) + 1;
    let route = route_of(&request, context.path_prefix());
    let method = method(request.method());
    let traced = Span::answering(&request, method, context.path_prefix(), context.auth.is_secure());
    // Neither path nor query: they hold users' ids and signatures. The names are OpenTelemetry's, where it has one.
    let span = tracing::info_span!(
        "http",
        request = number,
        http.request.method = method,
        http.route = ROUTES[route],
        http.response.status_code = field::Empty,
        app = field::Empty,
        trace_id = traced.trace_id().map(field::display),
    );
    let response = traced.follow(next.run(request).instrument(span.clone())).await;
    let took = began.elapsed();
    let status = response.status();
    context.traffic().count(route, status, took);
    traced.answered(status);
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.in_scope(|| tracing::warn!(status = status.as_u16(), ?took, "a request failed"));
    } else {
        span.in_scope(|| tracing::debug!(status = status.as_u16(), ?took, "a request was answered"));
    }
    response
}

/// How many requests there were, of which kind, with what outcome, and how long they took.
#[derive(Debug)]
pub(crate) struct Traffic {
    began: AtomicU64,
    bus: [Route; ROUTES.len()],
}

impl Default for Traffic {
    fn default() -> Self {
        Self { began: AtomicU64::new(0), bus: std::array::from_fn(|_| Route::default()) }
    }
}

#[derive(Debug, Default)]
struct Route {
    /// As [`STATUSES`]; the last is for all others.
    statuses: [AtomicU64; STATUSES.len() + 1],
    /// As [`BOUNDS`]; the last is for what took longer.
    durations: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Traffic {
    /// Counts and tells a request that was answered without [`observe`].
    pub(super) fn record(
        &self,
        route: &'static str,
        status: StatusCode,
        took: Duration,
        app: &str,
        trace_id: Option<impl fmt::Display>,
    ) {
        let number = ROUTES.iter().position(|known| *known == route).unwrap_or(0);
        self.count(number, status, took);
        let status = status.as_u16();
        let trace_id = trace_id.map(field::display);
        tracing::debug!(http.route = route, app, trace_id, status, ?took, "a request was answered");
    }

    fn count(&self, route: usize, status: StatusCode, took: Duration) {
        let route = &self.bus[route];
        let status = STATUSES.iter().position(|known| *known == status.as_u16()).unwrap_or(STATUSES.len());
        route.statuses[status].fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        route.durations[bucket].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        route.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// Writes what has been counted; nothing about routes that nobody has asked for.
    pub(crate) fn write(&self, page: &mut Exposition) {
        page.begin("taut_http_requests_total", Kind::Counter, "HTTP requests that were answered.");
        for (label, route) in ROUTES.iter().zip(&self.bus) {
            for (number, count) in route.statuses.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                let status = STATUSES.get(number).map_or_else(|| "other".to_owned(), u16::to_string);
                if count > 0 {
                    page.sample(&[("route", label), ("status", &status)], count);
                }
            }
        }
        page.begin(
            "taut_http_request_duration_seconds",
            Kind::Histogram,
            "Time from the head of an HTTP request to its answer.",
        );
        for (label, route) in ROUTES.iter().zip(&self.bus) {
            let counts: Vec<u64> = route.durations.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            if counts.iter().any(|count| *count > 0) {
                let sum = Duration::from_micros(route.microseconds.load(Ordering::Relaxed)).as_secs_f64();
                page.histogram(&[("route", label)], &BOUNDS, &counts, sum);
            }
        }
    }
}

/// The place among [`ROUTES`] of the route that answers.
fn route_of(request: &Request, prefix: &str) -> usize {
    let path = request.extensions().get::<MatchedPath>().map_or(OTHER, MatchedPath::as_str);
    let position = |path: &str| ROUTES.iter().position(|route| *route == path);
    // With a prefix, `/apps/…` and `/up` begin differently.
    let listed = path.strip_prefix(prefix).and_then(position).or_else(|| position(path));
    let is_file =
        || path.strip_prefix(CONSOLE_PAGES).is_some_and(|rest| rest.starts_with('/') && !rest.starts_with("/api/"));
    listed.or_else(|| is_file().then(|| position(CONSOLE_PAGES)).flatten()).unwrap_or(0)
}

/// A stranger may make up methods.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

/// What requests are counted by: their number is bounded, whatever strangers ask for. The first is for everything that is not listed.
const ROUTES: [&str; 23] = [
    OTHER,
    PUBLISH,
    "/apps/{app}/batch_events",
    "/apps/{app}/channels",
    "/apps/{app}/channels/{channel}",
    "/apps/{app}/channels/{channel}/users",
    "/apps/{app}/connections",
    "/apps/{app}/users/{user}/terminate_connections",
    "/users/{user}/terminate_connections",
    "/app/{key}",
    "/chat/config",
    "/chat/messages",
    "/up",
    "/ready",
    "/metrics",
    CONSOLE_PAGES,
    "/console/api/overview",
    "/console/api/apps/{app}/channels",
    "/console/api/apps/{app}/channels/{channel}",
    "/console/api/apps/{app}/connections",
    "/console/api/apps/{app}/events",
    "/console/api/events",
    "/console/api/session",
];

/// Where an event is published, after the prefix.
pub(super) const PUBLISH: &str = "/apps/{app}/events";

/// The console's page and its files.
const CONSOLE_PAGES: &str = "/console";

/// Pages, and what is not there.
const OTHER: &str = "other";

const STATUSES: [u16; 13] = [200, 400, 401, 403, 404, 405, 408, 413, 415, 426, 429, 500, 503];

/// Seconds.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[cfg(test)]
mod tests {
    use super::*;

    fn written(traffic: &Traffic) -> String {
        let mut page = Exposition::default();
        traffic.write(&mut page);
        page.into_text()
    }

    #[test]
    fn requests_are_counted_by_route_and_status_and_timed() {
        let traffic = Traffic::default();
        traffic.count(1, StatusCode::OK, Duration::from_micros(500));
        traffic.count(1, StatusCode::OK, Duration::from_micros(501));
        traffic.count(1, StatusCode::UNAUTHORIZED, Duration::from_secs(10));
        traffic.count(0, StatusCode::IM_A_TEAPOT, Duration::ZERO);
        let text = written(&traffic);
        for line in [
            "taut_http_requests_total{route=\"/apps/{app}/events\",status=\"200\"} 2\n",
            "taut_http_requests_total{route=\"/apps/{app}/events\",status=\"401\"} 1\n",
            "taut_http_requests_total{route=\"other\",status=\"other\"} 1\n",
            "taut_http_request_duration_seconds_bucket{route=\"/apps/{app}/events\",le=\"0.0005\"} 1\n",
            "taut_http_request_duration_seconds_bucket{route=\"/apps/{app}/events\",le=\"0.001\"} 2\n",
            "taut_http_request_duration_seconds_bucket{route=\"/apps/{app}/events\",le=\"5\"} 2\n",
            "taut_http_request_duration_seconds_bucket{route=\"/apps/{app}/events\",le=\"+Inf\"} 3\n",
            "taut_http_request_duration_seconds_sum{route=\"/apps/{app}/events\"} 10.001001\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("/up"), "{text}");
    }
}
