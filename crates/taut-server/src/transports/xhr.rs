//! What pusher-js asks by XHR, and SockJS too, as far as it does the same.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;

use super::{Begun, Mode, PREFLIGHT, Place, SCRIPT, Transports, UNBUFFERED, allowing, codec, no_session, session};
use crate::http::answer::ApiError;
use crate::http::body;
use crate::http::{HangUp, Peer};

/// A browser asks whether a page may ask: the content type of pusher-js' requests is none that it may send unasked.
///
/// # Cancel safety
/// It does not wait.
pub(super) async fn preflight(request: Request) -> Response {
    allowing(request.headers(), (StatusCode::NO_CONTENT, PREFLIGHT))
}

/// The client receives, for as long as it likes.
///
/// # Cancel safety
/// The session stays, until it has been left alone for too long.
pub(super) async fn stream(State(fallback): State<Arc<Transports>>, request: Request) -> Response {
    receive(&fallback, request, Mode::Streaming).await
}

/// The client receives what there is, or what comes next.
///
/// # Cancel safety
/// As [`stream`].
pub(super) async fn poll(State(fallback): State<Arc<Transports>>, request: Request) -> Response {
    receive(&fallback, request, Mode::Polling).await
}

/// The client speaks.
///
/// # Cancel safety
/// As `Session::say`.
pub(super) async fn send(State(fallback): State<Arc<Transports>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let said = async {
        let body = body::read(body, fallback.largest_body).await?;
        say(&fallback, &head, &body).await.map(|()| StatusCode::NO_CONTENT)
    };
    allowing(&head.headers, said.await)
}

/// Opens a response in this mode.
pub(super) async fn receive(fallback: &Arc<Transports>, request: Request, mode: Mode) -> Response {
    let (head, body) = request.into_parts();
    body::discard(body).await;
    let received = || {
        let place = Place::parse(head.uri.path(), &fallback.path_prefix)?;
        let extensions = &head.extensions;
        let (Peer(peer), hang_up) = extensions.get().zip(extensions.get::<HangUp>()).ok_or_else(nobody)?;
        let body = match fallback.session_or_new(&place, &mode, &head, *peer)? {
            Begun::Session(session) => Body::new(session.receive(mode, hang_up)),
            Begun::Refused(close) => Body::from(codec::refused(&session::refusal(&close), &close)),
        };
        Ok::<_, ApiError>(([SCRIPT, UNBUFFERED], body))
    };
    allowing(&head.headers, received())
}

/// Passes on what stands in the body.
pub(super) async fn say(fallback: &Transports, head: &Parts, body: &[u8]) -> Result<(), ApiError> {
    let place = Place::parse(head.uri.path(), &fallback.path_prefix)?;
    let session = fallback.session(&place)?;
    let messages = codec::messages(body)
        .ok_or_else(|| ApiError::bad_request("The body must be a JSON array of strings, one per message."))?;
    session.say(messages).await.map_err(|_| no_session())
}

/// Every request here came over a connection that says whose it is.
fn nobody() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "A server error has occurred.")
}
