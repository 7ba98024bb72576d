//! The HTTP side: what backends and the chat page ask. It runs on tokio, apart from the shards.

pub(crate) mod answer;
pub(crate) mod body;
mod chat;
mod events;
mod pages;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use http::StatusCode;

use crate::fallback::{self, Fallback};
use crate::limit::TokenBucket;
use crate::node::Node;
use crate::route::Busy;
use answer::Problem;

/// What every request may need.
#[derive(Debug)]
pub(crate) struct Context {
    node: Arc<Node>,
    path_prefix: String,
    chat_rate: Mutex<TokenBucket>,
}

impl Context {
    pub(crate) fn new(node: Arc<Node>, path_prefix: String) -> Self {
        Self { node, path_prefix, chat_rate: Mutex::new(chat::rate(Instant::now())) }
    }

    fn node(&self) -> &Node {
        &self.node
    }

    fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    fn chat_rate(&self) -> MutexGuard<'_, TokenBucket> {
        self.chat_rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that can be asked.
pub(crate) fn router(context: Arc<Context>, fallback: Arc<Fallback>) -> Router {
    let prefix = context.path_prefix().to_owned();
    let mut router = Router::new()
        .merge(fallback::router(fallback))
        .route(&format!("{prefix}/apps/{{id}}/events"), post(events::publish))
        .route(&format!("{prefix}/app/{{key}}"), get(upgrade_required))
        .route("/chat/config", get(chat::config))
        .route("/chat/messages", post(chat::say))
        .route("/up", get(up));
    for page in pages::PAGES {
        router = router.route(page.path, get(async move || page));
    }
    router.method_not_allowed_fallback(method_not_allowed).fallback(not_found).with_state(context)
}

/// For load balancers: this server is there.
async fn up() -> axum::response::Response {
    answer::json(r#"{"health":"OK"}"#)
}

/// A WebSocket would not have come here.
async fn upgrade_required() -> ([(http::HeaderName, &'static str); 2], Problem) {
    let problem = Problem::new(
        StatusCode::UPGRADE_REQUIRED,
        "This is where WebSocket clients connect: send an Upgrade: websocket header.",
    );
    // RFC 9110 §7.8: whoever sends Upgrade names it in Connection.
    ([(http::header::UPGRADE, "websocket"), (http::header::CONNECTION, "upgrade")], problem)
}

async fn method_not_allowed(request: Request) -> Problem {
    body::discard(request.into_body()).await;
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "This method is not allowed here; the Allow header says which are.")
}

async fn not_found(request: Request) -> Problem {
    body::discard(request.into_body()).await;
    Problem::new(StatusCode::NOT_FOUND, "There is nothing at this path.")
}

fn busy(Busy: Busy) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The server is busy: its queue is full. Please try again.")
        .retry_after(Duration::from_secs(1))
}
