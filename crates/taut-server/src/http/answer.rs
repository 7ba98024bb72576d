//! What the HTTP side answers when it cannot do what was asked.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::pusher::json::write_json_string;

/// A refusal: `{"error":"…","code":N}` with the status N. SDKs show the text to the person who uses them.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    error: Cow<'static, str>,
    retry_after: Option<Duration>,
    challenge: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        Self { status, error: error.into(), retry_after: None, challenge: None }
    }

    pub(crate) fn bad_request(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(crate) fn too_large(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    /// Says where in the request it was.
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.error = format!("{place}: {}", self.error).into();
        self
    }

    /// RFC 9110 §11.6.1: how whoever asks can show that he may.
    pub(crate) fn challenge(mut self, scheme: &'static str) -> Self {
        self.challenge = Some(scheme);
        self
    }

    /// Try again, but not before `delay` has passed.
    pub(crate) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = problem(self.status, &self.error);
        let mut response = (self.status, [(CONTENT_TYPE, JSON)], body).into_response();
        if let Some(delay) = self.retry_after {
            // Whole seconds (RFC 9110 §10.2.3), and never 0, which would mean at once.
            let seconds = delay.as_millis().div_ceil(1000).max(1);
            let value = HeaderValue::from_str(&seconds.to_string());
            response.headers_mut().extend(value.ok().map(|value| (RETRY_AFTER, value)));
        }
        if let Some(scheme) = self.challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        response
    }
}

/// What stands in a refusal.
pub(crate) fn problem(status: StatusCode, error: &str) -> String {
    let mut body = String::from(r#"{"error":"#);
    write_json_string(&mut body, error);
    body.push_str(r#","code":"#);
    body.push_str(status.as_str());
    body.push('}');
    body
}

/// 200 with an object: pusher-http-php takes nothing else for success.
pub(crate) fn json(body: impl Into<String>) -> Response {
    ([(CONTENT_TYPE, JSON)], body.into()).into_response()
}

/// 200 with what a value is in JSON, which has to be an object.
pub(crate) fn serialized(value: &impl Serialize) -> Result<Response, ApiError> {
    let internal = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "A server error has occurred.");
    serde_json::to_string(value).map(json).map_err(internal)
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_how_grave_and_when_to_try_again() {
        let delay = Duration::from_millis(1001);
        let response = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy").retry_after(delay).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            (&response.headers()[CONTENT_TYPE], &response.headers()[RETRY_AFTER]),
            (&JSON, &HeaderValue::from_static("2"))
        );
        let at_once = ApiError::bad_request("x").retry_after(Duration::ZERO).into_response();
        assert_eq!(at_once.headers()[RETRY_AFTER], "1");
        assert!(!ApiError::bad_request("x").into_response().headers().contains_key(RETRY_AFTER));
    }
}
