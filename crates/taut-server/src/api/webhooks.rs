//! What backends ask about webhooks that failed for good.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::Context;
use super::signed;
use crate::http::answer::{self, ApiError};
use crate::pusher::number;

/// `GET /apps/ID/webhooks/failed`: the requests that were given up, the newest first, with what went wrong.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(crate) async fn failed(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Failed<L> {
        failed: L,
    }
    let signed = signed::authenticated(&context, request, signed::no_body).await?;
    answer::serialized(&Failed { failed: context.webhooks().dead_letters(signed.app.id()) })
}

/// `POST /apps/ID/webhooks/failed/NUMBER/retry`: tries one of them again, as if it had just happened.
///
/// # Cancel safety
/// Either it has begun or it has not.
pub(crate) async fn retry(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let signed = signed::authenticated(&context, request, signed::no_body).await?;
    let number = number::digits(signed.path("number"));
    if number.is_some_and(|number| context.webhooks().retry(signed.app.id(), number)) {
        return Ok(answer::json("{}"));
    }
    Err(ApiError::new(StatusCode::NOT_FOUND, "There is no webhook with this number among those that failed for good."))
}
