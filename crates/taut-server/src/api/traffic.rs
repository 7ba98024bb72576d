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
use super::exposition::Exposition;
use crate::metric::{Description, Kind};
use crate::trace::Span;

/// Counts and times a request, and lends it a span of its own.
///
/// # Cancel safety
/// A request whose client has gone is dropped and not counted.
pub(crate) async fn observe(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let number = context.traffic().began.fetch_add(1, Ordering::Relaxed) + 1;
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = context.traffic().find(matched, context.path_prefix());
    let method = method(request.method());
    let traced = Span::answering(&request, method, context.path_prefix(), context.auth.is_secure());
    // Neither path nor query: they hold users' ids and signatures. The names are OpenTelemetry's, where it has one.
    let span = tracing::info_span!(
        "http",
        request = number,
        http.request.method = method,
        http.route = route.label,
        http.response.status_code = field::Empty,
        app = field::Empty,
        trace_id = traced.trace_id().map(field::display),
    );
    let response = traced.follow(next.run(request).instrument(span.clone())).await;
    let took = began.elapsed();
    let status = response.status();
    route.count(status, took);
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
    /// The number of labels is bounded, whatever strangers ask for. The first is for what is not there.
    routes: Vec<Counts>,
    /// Each path with the index of its label among them.
    paths: Vec<(&'static str, usize)>,
}

#[derive(Debug, Default)]
struct Counts {
    label: &'static str,
    /// As [`STATUSES`]; the last is for all others.
    statuses: [AtomicU64; STATUSES.len() + 1],
    /// As [`BOUNDS`]; the last is for what took longer.
    durations: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Traffic {
    /// Counts requests for these paths by these labels.
    pub(super) fn new(labels: impl Iterator<Item = (&'static str, &'static str)>) -> Self {
        let mut traffic = Self { began: AtomicU64::new(0), routes: vec![Counts::of(OTHER)], paths: Vec::new() };
        for (path, label) in labels {
            let known = traffic.routes.iter().position(|route| route.label == label);
            traffic.paths.push((path, known.unwrap_or(traffic.routes.len())));
            if known.is_none() {
                traffic.routes.push(Counts::of(label));
            }
        }
        traffic
    }

    /// The route of a path as axum has matched it.
    fn find(&self, matched: Option<&str>, prefix: &str) -> &Counts {
        let find = |path: &str| self.paths.iter().find(|(known, _)| *known == path).map(|(_, index)| *index);
        // With a prefix, `/apps/…` and `/up` begin differently.
        let found = matched.and_then(|path| path.strip_prefix(prefix).and_then(find).or_else(|| find(path)));
        &self.routes[found.unwrap_or(0)]
    }

    /// Counts and tells a request that was answered without [`observe`].
    pub(super) fn record(
        &self,
        route: &'static str,
        status: StatusCode,
        took: Duration,
        app: &str,
        trace_id: Option<impl fmt::Display>,
    ) {
        self.find(Some(route), "").count(status, took);
        let status = status.as_u16();
        let trace_id = trace_id.map(field::display);
        tracing::debug!(http.route = route, app, trace_id, status, ?took, "a request was answered");
    }

    #[cfg(test)]
    pub(super) fn label(&self, matched: Option<&str>, prefix: &str) -> &'static str {
        self.find(matched, prefix).label
    }

    /// Writes what has been counted; nothing about routes that nobody has asked for.
    pub(crate) fn write(&self, page: &mut Exposition) {
        page.begin(&REQUESTS);
        for route in &self.routes {
            for (number, count) in route.statuses.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                let status = STATUSES.get(number).map_or_else(|| "other".to_owned(), u16::to_string);
                if count > 0 {
                    page.sample(&[("route", route.label), ("status", &status)], count);
                }
            }
        }
        page.begin(&DURATIONS);
        for route in &self.routes {
            let counts: Vec<u64> = route.durations.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            if counts.iter().any(|count| *count > 0) {
                let sum = Duration::from_micros(route.microseconds.load(Ordering::Relaxed)).as_secs_f64();
                page.histogram(&[("route", route.label)], &BOUNDS, &counts, sum);
            }
        }
    }
}

impl Counts {
    fn of(label: &'static str) -> Self {
        Self { label, ..Self::default() }
    }

    fn count(&self, status: StatusCode, took: Duration) {
        let status = STATUSES.iter().position(|known| *known == status.as_u16()).unwrap_or(STATUSES.len());
        self.statuses[status].fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.durations[bucket].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }
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

/// What is not there.
pub(super) const OTHER: &str = "other";

/// Alerts select server errors by `status=~"5.."`: each that Taut sends has to be here.
const STATUSES: [u16; 17] = [200, 204, 400, 401, 403, 404, 405, 408, 413, 415, 426, 429, 500, 501, 502, 503, 504];

/// Seconds.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

pub(super) const REQUESTS: Description = Description::new(
    "taut_http_requests_total",
    Kind::Counter,
    &["route", "status"],
    "HTTP requests that were answered.",
);

pub(super) const DURATIONS: Description = Description::new(
    "taut_http_request_duration_seconds",
    Kind::Histogram,
    &["route"],
    "Time from the head of an HTTP request to its answer.",
);

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
        let traffic = Traffic::new([("/apps/{app}/events", "/apps/{app}/events"), ("/up", "/up")].into_iter());
        let publish = traffic.find(Some("/x/apps/{app}/events"), "/x");
        publish.count(StatusCode::OK, Duration::from_micros(500));
        publish.count(StatusCode::OK, Duration::from_micros(501));
        publish.count(StatusCode::UNAUTHORIZED, Duration::from_secs(10));
        traffic.find(None, "/x").count(StatusCode::IM_A_TEAPOT, Duration::ZERO);
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

    #[test]
    fn every_server_error_is_counted_by_its_status() {
        let traffic = Traffic::new([("/up", "/up")].into_iter());
        let errors = [
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::NOT_IMPLEMENTED,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        for status in errors {
            traffic.find(Some("/up"), "").count(status, Duration::ZERO);
        }
        let text = written(&traffic);
        for status in errors {
            let line = format!("taut_http_requests_total{{route=\"/up\",status=\"{}\"}} 1\n", status.as_u16());
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
