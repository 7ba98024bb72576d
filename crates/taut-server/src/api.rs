//! The HTTP API, the pages and the endpoints for operators. Runs on tokio, apart from the shards.
//!
//! A backend's request passes `signed` (which app, body within limits) and `auth` (signature, status, rate). `inline`
//! answers plain publishes and health checks on the shard that reads them, through the same `auth`; every refusal is
//! left to the HTTP side. `traffic` counts, times and logs each request by its route.

mod auth;
mod channels;
mod chat;
mod console;
mod events;
mod exposition;
mod health;
mod info;
mod inline;
mod listener;
mod metrics;
mod operators;
mod pages;
mod signed;
mod traffic;
mod users;
mod webhooks;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::watch;

use crate::app::Secret;
use crate::bus::Busy;
use crate::config::Config;
use crate::http::answer::ApiError;
use crate::http::body;
use crate::limit::TokenBucket;
use crate::node::Node;
use crate::transports::{self, Transports};
use crate::webhooks::Webhooks;
pub(crate) use console::Console;
use console::Login;
#[cfg(feature = "testing")]
pub(crate) use events::testing as events_testing;
pub(crate) use health::Readiness;
use listener::Listener;
pub(crate) use operators::{console_router, metrics_router};
use traffic::Traffic;

pub(crate) use auth::ApiAuth;
pub(crate) use inline::InlineResponder;

/// What every request may need.
pub(crate) struct Context {
    auth: Arc<ApiAuth>,
    chat_rate: Mutex<TokenBucket>,
    draining: watch::Receiver<bool>,
    readiness: Arc<Readiness>,
    started: Instant,
    metrics_token: Option<Secret>,
    webhooks: Arc<Webhooks>,
    console: Arc<Console>,
}

impl Context {
    /// `draining` becomes true when the server goes, and `readiness` says so some time before.
    pub(crate) fn new(
        auth: Arc<ApiAuth>,
        webhooks: Arc<Webhooks>,
        console: Arc<Console>,
        config: &Config,
        draining: watch::Receiver<bool>,
        readiness: Arc<Readiness>,
    ) -> Self {
        let started = Instant::now();
        Self {
            auth,
            chat_rate: Mutex::new(chat::rate(started)),
            draining,
            readiness,
            started,
            metrics_token: config.metrics_token.clone(),
            webhooks,
            console,
        }
    }

    fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    fn node(&self) -> &Node {
        self.auth.node()
    }

    fn path_prefix(&self) -> &str {
        self.auth.path_prefix()
    }

    fn traffic(&self) -> &Traffic {
        self.auth.traffic()
    }

    fn chat_rate(&self) -> MutexGuard<'_, TokenBucket> {
        self.chat_rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the console asks of those who come by this listener; `None` where there is no console.
    fn console_login(&self, listener: Listener) -> Option<Login> {
        self.console.login(listener, self.node().apps())
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Context").field("backends", &self.auth).finish_non_exhaustive()
    }
}

/// All that can be asked where clients connect.
pub(crate) fn router(context: &Arc<Context>, fallback: Option<Arc<Transports>>) -> Router {
    let prefix = context.path_prefix().to_owned();
    let prefixed = |path: &str| format!("{prefix}{path}");
    let mut router = Router::new()
        .merge(fallback.map_or_else(Router::new, transports::router))
        .route(&prefixed(traffic::PUBLISH), post(events::publish))
        .route(&prefixed("/apps/{app}/batch_events"), post(events::publish_batch))
        .route(&prefixed("/apps/{app}/channels"), get(channels::list))
        .route(&prefixed("/apps/{app}/channels/{channel}"), get(channels::one))
        .route(&prefixed("/apps/{app}/channels/{channel}/users"), get(channels::users))
        .route(&prefixed("/apps/{app}/connections"), get(users::connections))
        .route(&prefixed("/apps/{app}/webhooks/failed"), get(webhooks::failed))
        .route(&prefixed("/apps/{app}/webhooks/failed/{number}/retry"), post(webhooks::retry))
        .route(&prefixed("/apps/{app}/users/{user}/terminate_connections"), post(users::terminate))
        // pusher-http-python forgets the app in this path; its key tells which one is meant.
        .route(&prefixed("/users/{user}/terminate_connections"), post(users::terminate))
        .route(&prefixed("/app/{key}"), get(upgrade_required))
        .route("/chat/config", get(chat::config))
        .route("/chat/messages", post(chat::say))
        .merge(operators::bus(Listener::Clients, &prefix));
    for page in pages::PAGES {
        router = router.route(page.path, get(async move || page));
    }
    finish(router.merge(console::router(context, Listener::Clients)), context)
}

/// Adds what all listeners have in common.
fn finish(router: Router<Arc<Context>>, context: &Arc<Context>) -> Router {
    router
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(from_fn(refuse_encoded))
        .layer(from_fn_with_state(Arc::clone(context), traffic::observe))
        .with_state(Arc::clone(context))
}

/// A WebSocket would not have come here.
async fn upgrade_required() -> ([(http::HeaderName, &'static str); 2], ApiError) {
    let problem = ApiError::new(
        StatusCode::UPGRADE_REQUIRED,
        "This is where WebSocket clients connect: send an Upgrade: websocket header.",
    );
    // RFC 9110 §7.8: whoever sends Upgrade names it in Connection.
    ([(http::header::UPGRADE, "websocket"), (http::header::CONNECTION, "upgrade")], problem)
}

/// RFC 9110 §9.3.7: OPTIONS asks which methods there are, which the Allow header says.
async fn method_not_allowed(request: Request) -> Result<StatusCode, ApiError> {
    let is_question = request.method() == Method::OPTIONS;
    body::discard(request.into_body()).await;
    if is_question {
        return Ok(StatusCode::NO_CONTENT);
    }
    let error = "This method is not allowed here; the Allow header says which are.";
    Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error))
}

/// No SDK compresses what it sends, and a signature is of the bytes that it knows. So a body that something on the way has compressed is
/// refused with words, and not taken for JSON that is broken.
async fn refuse_encoded(request: Request, next: Next) -> Response {
    let is_identity = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if request.headers().get_all(CONTENT_ENCODING).iter().all(is_identity) {
        return next.run(request).await;
    }
    body::discard(request.into_body()).await;
    let error =
        "The body of the request is compressed, which is not understood here: send it without a Content-Encoding.";
    // RFC 9110 §12.5.3: which encodings would be taken.
    ([(ACCEPT_ENCODING, "identity")], ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error)).into_response()
}

async fn not_found(request: Request) -> ApiError {
    body::discard(request.into_body()).await;
    ApiError::new(StatusCode::NOT_FOUND, "There is nothing at this path.")
}

/// Waits for what the shards are asked, but not for ever.
///
/// # Cancel safety
/// Whatever the question's own future loses is lost: the answer.
async fn asked<T>(question: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::time::timeout(SLOWEST_ANSWER, question).await.map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The server is busy: it found no answer in time. Please try again.",
        )
        .retry_after(Duration::from_secs(1))
    })
}

fn busy(Busy: Busy) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "The server is busy: its queue is full. Please try again.")
        .retry_after(Duration::from_secs(1))
}

/// Characters of a peer's own text that an error repeats.
const LONGEST_ECHO: usize = 200;

/// What a peer sent, as far as an error repeats it.
fn echo(text: &str) -> String {
    text.chars().take(LONGEST_ECHO).collect()
}

/// How long a shard may take to answer; it takes microseconds when all is well.
const SLOWEST_ANSWER: Duration = Duration::from_secs(5);
