//! Spans for OpenTelemetry, by its conventions for HTTP.

use std::borrow::Cow;
use std::time::SystemTime;

use axum::extract::{MatchedPath, Request};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use opentelemetry::context::{FutureExt, WithContext};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, TraceId, Tracer};
use opentelemetry::{Context, KeyValue, global};
use taut_proto::handshake;

/// Something that takes time. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Span(Context);

impl Span {
    /// A request that somebody has made, and whose trace it belongs to if the caller says so; nothing, unless it is one of the HTTP API.
    pub(crate) fn answering(request: &Request, method: &'static str, prefix: &str, is_secure: bool) -> Self {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        // Clients over HTTP make a request for each message, and load balancers one a second.
        let Some(route) = route.filter(|route| is_api(route, prefix)) else { return Self::none() };
        let mut attributes = server_attributes(method, route, request.uri().path());
        attributes.push(scheme(is_secure));
        let version = if request.version() == Version::HTTP_10 { "1.0" } else { "1.1" };
        attributes.push(KeyValue::new("network.protocol.version", version));
        let header = |name| only(request.headers().get_all(name).iter()).and_then(|value| value.to_str().ok());
        Self::start(
            server(method, route, attributes),
            &Caller::new(header("traceparent"), header("tracestate")).context(),
        )
    }

    /// An upgrade to a WebSocket that waits until somebody has said who the client is.
    pub(crate) fn upgrading(request: &handshake::Request<'_>, app: &str) -> Self {
        const ROUTE: &str = "/app/{key}";
        let mut attributes = server_attributes("GET", ROUTE, request.path());
        attributes.push(KeyValue::new(APP, app.to_owned()));
        Self::start(server("GET", ROUTE, attributes), &Caller::of(request).context())
    }

    /// A request that is about to be made for an app. Whoever gets it is told of the trace.
    pub(crate) fn asking<B>(purpose: &'static str, app: &str, request: &mut http::Request<B>) -> Self {
        let method = request.method().as_str();
        let uri = request.uri();
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let attributes = [
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("server.address", host.to_owned()),
            KeyValue::new("server.port", i64::from(port)),
            // As the log has it: a query often holds a token. There is no name and no password, or it would not be asked.
            KeyValue::new("url.full", format!("{scheme}://{host}:{port}{}", uri.path())),
            KeyValue::new(APP, app.to_owned()),
        ];
        let name = format!("{method} {purpose}");
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client).with_attributes(attributes);
        let span = Self::start(builder, &Context::current());
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&span.0, &mut Headers(request.headers_mut()));
        });
        span
    }

    /// A part of what is being done; nothing, unless that is traced.
    pub(crate) fn within(name: &'static str) -> Self {
        Context::map_current(|context| {
            if context.span().is_recording() {
                Self::start(SpanBuilder::from_name(name), context)
            } else {
                Self::none()
            }
        })
    }

    /// What the future begins is part of this.
    ///
    /// # Cancel safety
    /// As the future's own.
    pub(crate) fn follow<F: Future>(&self, future: F) -> WithContext<F> {
        future.with_context(self.0.clone())
    }

    /// Which trace this is a part of, if anybody keeps it.
    pub(crate) fn trace_id(&self) -> Option<TraceId> {
        let span = self.0.span();
        span.span_context().is_sampled().then(|| span.span_context().trace_id())
    }

    /// Of how many things this is.
    pub(crate) fn count(&self, of: &'static str, count: usize) {
        self.0.span().set_attribute(KeyValue::new(of, i64::try_from(count).unwrap_or(i64::MAX)));
    }

    /// It has been answered from here.
    pub(crate) fn answered(self, status: StatusCode) {
        self.set_status(status, status.is_server_error());
    }

    /// Somebody else has answered, or not.
    pub(crate) fn heard(self, answer: Result<StatusCode, &str>) {
        match answer {
            Ok(status) => self.set_status(status, status.is_client_error() || status.is_server_error()),
            Err(reason) => {
                // There is no name for each; the reason repeats nothing of the request.
                self.failed("_OTHER");
                self.0.span().set_status(Status::error(reason.to_owned()));
            }
        }
    }

    /// It has failed in this manner.
    pub(crate) fn failed(&self, manner: &'static str) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("error.type", manner));
        span.set_status(Status::error(""));
    }

    /// It is over, here rather than where it would be dropped.
    pub(crate) fn end(self) {
        drop(self);
    }

    fn none() -> Self {
        Self(Context::new())
    }

    fn start(builder: SpanBuilder, parent: &Context) -> Self {
        let span = global::tracer(SCOPE).build_with_context(builder, parent);
        Self(parent.with_span(span))
    }

    fn set_status(&self, status: StatusCode, is_error: bool) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if is_error {
            span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
            span.set_status(Status::error(""));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

/// What a shard does of a publish, step by step. It is told of when all of it is done; dropped before that, it was nothing.
#[derive(Debug)]
pub(crate) struct Steps {
    /// When each step began, and when the last was over.
    times: [SystemTime; 4],
    count: usize,
}

impl Steps {
    pub(crate) fn begin() -> Self {
        Self { times: [SystemTime::now(); 4], count: 1 }
    }

    /// One step is over, and the next begins.
    pub(crate) fn next(&mut self) {
        if let Some(time) = self.times.get_mut(self.count) {
            *time = SystemTime::now();
            self.count += 1;
        }
    }

    /// The publish has been read, verified and handed on, and is answered. Says to which trace it belongs, if anybody keeps that. `route` is the
    /// path that the request matched, without the prefix.
    pub(crate) fn published(
        self,
        request: &handshake::Request<'_>,
        prefix: &str,
        route: &str,
        is_secure: bool,
        app: &str,
        channels: usize,
    ) -> Option<TraceId> {
        let [began, verifying, fanning_out, over] = self.times;
        let route = format!("{prefix}{route}");
        let mut attributes = server_attributes("POST", &route, request.path());
        attributes.extend([
            scheme(is_secure),
            KeyValue::new("network.protocol.version", "1.1"),
            KeyValue::new("http.response.status_code", i64::from(StatusCode::OK.as_u16())),
            KeyValue::new(APP, app.to_owned()),
        ]);
        let builder = server("POST", &route, attributes).with_start_time(began);
        let span = Span::start(builder, &Caller::of(request).context());
        let trace_id = span.trace_id()?;
        let part = |name, from, until, attributes: Vec<KeyValue>| {
            let builder = SpanBuilder::from_name(name).with_start_time(from).with_attributes(attributes);
            Span::start(builder, &span.0).0.span().end_with_timestamp(until);
        };
        part("verify", verifying, fanning_out, Vec::new());
        let channels = i64::try_from(channels).unwrap_or(i64::MAX);
        part("fan out", fanning_out, over, vec![KeyValue::new("taut.channels", channels)]);
        Some(trace_id)
    }
}

/// Says which app's request is being answered, once that is known for sure.
pub(crate) fn name_app(id: &str) {
    Context::map_current(|context| {
        let span = context.span();
        if span.is_recording() {
            span.set_attribute(KeyValue::new(APP, id.to_owned()));
        }
    });
}

/// Whose trace a request says that it belongs to, by W3C's Trace Context.
struct Caller<'r> {
    parent: Option<&'r str>,
    state: Option<&'r str>,
}

impl<'r> Caller<'r> {
    fn new(parent: Option<&'r str>, state: Option<&'r str>) -> Self {
        // W3C Trace Context §3.3.1.5: 512 characters should be passed on. Spans wait in memory, and a stranger may have made it longer.
        Self { parent, state: state.filter(|state| state.len() <= LONGEST_STATE) }
    }

    fn of(request: &handshake::Request<'r>) -> Self {
        Self::new(only(request.header_values("traceparent")), only(request.header_values("tracestate")))
    }

    fn context(&self) -> Context {
        global::get_text_map_propagator(|propagator| propagator.extract_with_context(&Context::new(), self))
    }
}

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.parent,
            "tracestate" => self.state,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// The headers of a request that is about to be made.
struct Headers<'r>(&'r mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        // A state that is empty is not worth a header.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

fn is_api(route: &str, prefix: &str) -> bool {
    route.strip_prefix(prefix).is_some_and(|route| route.starts_with("/apps/") || route.starts_with("/users/"))
}

fn server(method: &'static str, route: &str, attributes: Vec<KeyValue>) -> SpanBuilder {
    // The conventions ask for this name where a stranger has made one up.
    let method = if method == "_OTHER" { "HTTP" } else { method };
    let name: Cow<'static, str> = format!("{method} {route}").into();
    SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes)
}

fn scheme(is_secure: bool) -> KeyValue {
    KeyValue::new("url.scheme", if is_secure { "https" } else { "http" })
}

fn server_attributes(method: &'static str, route: &str, path: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.route", route.to_owned()),
        KeyValue::new("url.path", shown(route, path)),
    ]
}

/// A path as it may be shown: with the id of the app, but without names of channels and users.
fn shown(route: &str, path: &str) -> String {
    let mut shown = String::with_capacity(route.len());
    for (number, (pattern, part)) in route.split('/').zip(path.split('/')).enumerate() {
        if number > 0 {
            shown.push('/');
        }
        shown.push_str(match pattern {
            "{app}" if part.len() <= LONGEST_APP => part,
            _ if pattern.starts_with('{') => "REDACTED",
            _ => pattern,
        });
    }
    shown
}

/// The one value of a header; of several it cannot be said which is meant.
fn only<T>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let value = values.next();
    value.filter(|_| values.next().is_none())
}

/// Who makes the spans.
const SCOPE: &str = "taut";

/// The id of an app.
const APP: &str = "taut.app";

/// Bytes of an app's id that are shown although a stranger may have made it up.
const LONGEST_APP: usize = 64;

/// Bytes of a caller's state of its trace.
const LONGEST_STATE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_shows_its_app_and_neither_users_nor_channels() {
        let path = |route, path| shown(route, path);
        assert_eq!(path("/apps/{app}/events", "/apps/shop/events"), "/apps/shop/events");
        assert_eq!(
            path("/x/apps/{app}/channels/{channel}/users", "/x/apps/1/channels/private-anna/users"),
            "/x/apps/1/channels/REDACTED/users"
        );
        let long = format!("/apps/{}/events", "a".repeat(65));
        assert_eq!(path("/apps/{app}/events", &long), "/apps/REDACTED/events");
        assert_eq!(
            path("/users/{user}/terminate_connections", "/users/anna/terminate_connections"),
            "/users/REDACTED/terminate_connections"
        );
        assert_eq!(path("/app/{key}", "/prefix/app/key"), "/app/REDACTED");
    }

    #[test]
    fn only_requests_of_the_api_are_traced() {
        assert!(is_api("/apps/{app}/events", "") && is_api("/x/users/{user}/terminate_connections", "/x"));
        for route in
            ["/up", "/metrics", "/console/api/apps/{app}/events", "/pusher/app/{key}/{server}/{session}/xhr_send"]
        {
            assert!(!is_api(route, ""), "{route}");
        }
        assert!(!is_api("/up", "/x") && !is_api("/apps/{app}/events", "/x"));
    }

    #[test]
    fn a_header_that_comes_twice_says_nothing() {
        assert_eq!(only([1].into_iter()), Some(1));
        assert_eq!(only([1, 2].into_iter()), None);
        assert_eq!(only(Vec::<u8>::new().into_iter()), None);
    }

    #[test]
    fn a_long_state_is_left_behind() {
        let state = "a=".to_owned() + &"b".repeat(510);
        assert_eq!(Caller::new(None, Some(&state)).get("tracestate"), Some(&*state));
        assert_eq!(Caller::new(None, Some(&(state + "b"))).get("tracestate"), None);
    }
}
