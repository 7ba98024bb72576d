//! For load balancers: whether this server is there, and whether it should get more to do.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::Context;
use super::answer::{self, Problem};

/// `GET /up`: this server is there.
pub(crate) async fn up() -> Response {
    answer::json(r#"{"health":"OK"}"#)
}

/// `GET /ready`: this server takes clients and publishers. 503 while it is going, or has more to do than it can.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(crate) async fn ready(State(context): State<Arc<Context>>) -> Result<Response, Problem> {
    let not_ready =
        |error: &'static str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error).retry_after(Duration::from_secs(1));
    if context.is_draining() {
        return Err(not_ready("The server is going down."));
    }
    if context.node().is_overloaded() {
        return Err(not_ready("The server is busy: its queue is full."));
    }
    // Every event loop has to take part in the answer.
    tokio::time::timeout(SLOWEST, context.node().statistics())
        .await
        .map_err(|_| not_ready("The server is busy: an event loop did not answer in time."))?;
    Ok(answer::json(r#"{"ready":true}"#))
}

/// An event loop that takes longer for one turn should get no more to do.
const SLOWEST: Duration = Duration::from_secs(1);
