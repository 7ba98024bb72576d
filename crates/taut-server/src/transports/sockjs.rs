//! What is SockJS' own: where its clients begin, and how those receive and send that have nothing but script elements and forms.
//!
//! There are neither its WebSockets, which would be of no use here, nor its iframes. The SockJS that pusher-js loads, for browsers without XHR,
//! tries its three kinds of iframes first, and after some three seconds the script elements.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use taut_proto::handshake::form_value;

use super::{Mode, Transports, allowing, codec, xhr};
use crate::http::answer::{self, ApiError};
use crate::http::body;

/// `GET /pusher/info`: what there is.
///
/// # Cancel safety
/// It does not wait.
pub(super) async fn info(State(fallback): State<Arc<Transports>>, request: Request) -> Response {
    // SockJS wants a number that the page may mix into its own random ones.
    let entropy = getrandom::u32().unwrap_or_default();
    let interval = fallback.patience.interval.max(Duration::from_secs(1)).as_millis();
    let info = format!(
        r#"{{"websocket":false,"origins":["*:*"],"cookie_needed":false,"entropy":{entropy},"server_heartbeat_interval":{interval}}}"#
    );
    allowing(request.headers(), answer::json(info))
}

/// The client receives until it has had enough.
///
/// # Cancel safety
/// As that of `xhr::stream`.
pub(super) async fn stream(State(fallback): State<Arc<Transports>>, request: Request) -> Response {
    xhr::receive(&fallback, request, Mode::Limited).await
}

/// `GET …/jsonp?c=NAME`: the client receives one frame, as a call of its own function.
///
/// # Cancel safety
/// As that of `xhr::stream`.
pub(super) async fn call(State(fallback): State<Arc<Transports>>, request: Request) -> Response {
    let name = request.uri().query().and_then(|query| form_value(query, "c")).map(Cow::into_owned);
    match name.filter(|name| codec::is_callback(name)) {
        Some(callback) => xhr::receive(&fallback, request, Mode::Call(callback)).await,
        None => allowing(
            request.headers(),
            ApiError::bad_request("The parameter c is the name of a function: letters, digits, dots and underscores."),
        ),
    }
}

/// `POST …/jsonp_send`: the client speaks, by a form that a page of any site may send without asking; hence the name of the session is all that
/// protects it.
///
/// # Cancel safety
/// As `Session::say`.
pub(super) async fn send(State(fallback): State<Arc<Transports>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let said = async {
        // In a form, every byte may take three.
        let body = body::read(body, fallback.largest_body.saturating_mul(3)).await?;
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/x-www-form-urlencoded") {
            let said = codec::field(&body, "d")
                .ok_or_else(|| ApiError::bad_request("The field d of the form is missing, or is not UTF-8."))?;
            xhr::say(&fallback, &head, said.as_bytes()).await?;
        } else {
            xhr::say(&fallback, &head, &body).await?;
        }
        Ok::<_, ApiError>((StatusCode::OK, "ok"))
    };
    allowing(&head.headers, said.await).into_response()
}
