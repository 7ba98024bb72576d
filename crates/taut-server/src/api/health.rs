//! For load balancers: whether this server is there, and whether it should get more to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::Context;
use super::answer::{self, Problem};

/// Whether load balancers may send more to this server, and whether there are any that ask.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    is_leaving: bool,
    last: Option<Instant>,
}

impl Readiness {
    /// From now on there is no more to be sent here.
    pub(crate) fn leave(&self) {
        self.asked(|asked| asked.is_leaving = true);
    }

    /// When somebody has asked for the last time.
    pub(crate) fn last_asked(&self) -> Option<Instant> {
        self.asked(|asked| asked.last)
    }

    /// Somebody asks.
    fn is_leaving(&self, now: Instant) -> bool {
        self.asked(|asked| {
            asked.last = Some(now);
            asked.is_leaving
        })
    }

    fn asked<T>(&self, act: impl FnOnce(&mut Asked) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

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
    if context.readiness.is_leaving(Instant::now()) || context.is_draining() {
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
