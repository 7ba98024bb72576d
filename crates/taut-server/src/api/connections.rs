//! What backends say to single connections and users, out of band.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use super::signed::SignedRequest;
use super::{Context, asked, not_published, signed};
use crate::app::Limits;
use crate::gateway::frame::{Action, Frame};
use crate::http::answer::{self, ApiError};
use crate::hub::command::{Event, Publication};
use crate::pusher::channel::Channel;
use crate::pusher::socket_id::SocketId;

/// `POST /apps/ID/connections/CONNECTION/send`: sends the body to one connection of a route.
///
/// The body is a text message if it is UTF-8 and not `application/octet-stream`, and a binary message otherwise. In a
/// cluster the connection may be on any node.
///
/// # Errors
/// 410 if there is no such connection; in a cluster, 202 if it is not on this node, whether another one has it or not.
///
/// # Cancel safety
/// The connection gets all of it or nothing.
pub(crate) async fn send(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let keyed = signed::authenticated_or_keyed(&context, request, largest_message).await?;
    tell_connection(&context, &keyed, message(&keyed)).await
}

/// `POST /apps/ID/connections/CONNECTION/close`: closes one connection of a route, with 1000 or as the body says:
/// `{"code":4000,"reason":"…"}`.
///
/// # Errors
/// As with [`send`].
///
/// # Cancel safety
/// Either it has begun, and is done all the same, or it has not.
pub(crate) async fn close(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    #[derive(Deserialize)]
    struct Close {
        #[serde(default = "normal")]
        code: u16,
        #[serde(default)]
        reason: String,
    }
    let keyed = signed::authenticated_or_keyed(&context, request, signed::no_body).await?;
    let body = if keyed.body.trim_ascii().is_empty() { b"{}" } else { &*keyed.body };
    // A list would be read as the fields in their order.
    let close = if body.trim_ascii().starts_with(b"{") { serde_json::from_slice(body).ok() } else { None };
    let Some(Close { code, reason }) = close else {
        return Err(ApiError::bad_request(
            "The body is not an object with a code and a reason, both of them optional.",
        ));
    };
    if code != NORMAL && !(3000..=4999).contains(&code) {
        return Err(ApiError::bad_request("The code is 1000, or from 3000 to 4999."));
    }
    if reason.len() > LONGEST_REASON {
        return Err(ApiError::bad_request(format!("The reason has more than {LONGEST_REASON} bytes.")));
    }
    tell_connection(&context, &keyed, Action::Close { code, reason }).await
}

/// `DELETE /@connections/CONNECTION`: closes one connection of a route.
///
/// # Errors
/// As with [`send`].
///
/// # Cancel safety
/// As with [`close`].
pub(crate) async fn delete(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let keyed = signed::authenticated_or_keyed(&context, request, signed::no_body).await?;
    tell_connection(&context, &keyed, Action::Close { code: NORMAL, reason: String::new() }).await
}

/// `GET /apps/ID/connections/CONNECTION`: whether a connection of a route is there.
///
/// # Errors
/// As with [`send`].
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(crate) async fn show(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let keyed = signed::authenticated_or_keyed(&context, request, signed::no_body).await?;
    Ok(if is_here(&context, &keyed, &channel(&keyed)?).await? { answer::json("{}") } else { accepted() })
}

/// `POST /apps/ID/users/USER/send`: sends the body to all connections of a user, as [`send`] does to one. Pusher's
/// clients get a text as the event `message` of their user.
///
/// # Cancel safety
/// The connections get all of it or nothing.
pub(crate) async fn send_to_user(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let keyed = signed::authenticated_or_keyed(&context, request, largest_message).await?;
    let user_id = keyed.path("user");
    let most = keyed.snapshot.limits.user_id;
    let channel = Channel::of_user(user_id);
    if user_id.chars().count() > most || Channel::parse(&channel, usize::MAX).is_err() {
        return Err(ApiError::bad_request(format!("Invalid user id: it has between 1 and {most} characters.")));
    }
    publish(&context, &keyed, channel, message(&keyed)).await?;
    Ok(answer::json("{}"))
}

async fn tell_connection(context: &Context, keyed: &SignedRequest, action: Action) -> Result<Response, ApiError> {
    let channel = channel(keyed)?;
    let is_here = is_here(context, keyed, &channel).await?;
    publish(context, keyed, channel, action).await?;
    Ok(if is_here { answer::json("{}") } else { accepted() })
}

/// Whether the connection is on this node; in a cluster it may be on another one.
async fn is_here(context: &Context, keyed: &SignedRequest, channel: &str) -> Result<bool, ApiError> {
    let state = asked(context.node().channel(&keyed.app, channel)).await?;
    let is_here = state.occupancy.subscriptions > 0;
    if !is_here && !context.node().is_clustered() {
        return Err(ApiError::new(StatusCode::GONE, "There is no such connection: it is gone, or is not of a route."));
    }
    Ok(is_here)
}

async fn publish(context: &Context, keyed: &SignedRequest, channel: String, action: Action) -> Result<(), ApiError> {
    let event = Event::frame(&Frame::from(action).data());
    let publication = Publication { channel: channel.into(), event, excluded: None, at: Instant::now(), receipt: None };
    context.node().publish_and_wait(&keyed.app, std::iter::once(publication)).await.map_err(not_published)
}

fn channel(keyed: &SignedRequest) -> Result<String, ApiError> {
    let id = keyed.path("connection");
    if SocketId::parse(id).is_none() {
        return Err(ApiError::bad_request("That is not the id of a connection: the backend of its route is told it."));
    }
    Ok(Channel::of_connection(id))
}

fn message(keyed: &SignedRequest) -> Action {
    let content_type = keyed.header(&CONTENT_TYPE).unwrap_or_default();
    let is_binary = content_type.trim_ascii().to_ascii_lowercase().starts_with("application/octet-stream");
    match str::from_utf8(&keyed.body) {
        Ok(text) if !is_binary => Action::Text(text.to_owned()),
        _ => Action::binary(&keyed.body),
    }
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, answer::json("{}")).into_response()
}

fn largest_message(limits: &Limits) -> usize {
    limits.event_data
}

fn normal() -> u16 {
    NORMAL
}

const NORMAL: u16 = 1000;

/// Bytes of a Close frame's reason (RFC 6455 §5.5).
const LONGEST_REASON: usize = 123;
