//! What a client gets whose stream was refused.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use taut_proto::handshake::{Refusal, Version};

use super::content::{LATER, SOON, retry};
use crate::gateway::sse;

/// The response to a client that `asks_for_events` or does not.
///
/// An `EventSource` never comes back after any status but 200 (WHATWG HTML §9.2.3). So where all may be well again in a
/// moment, it gets 200, the time after which to come back, and the end; otherwise the refusal as it is.
pub(super) fn response(refusal: &Refusal, asks_for_events: bool) -> Response {
    let response = refusal.response(Version::Http11);
    let retry_after =
        response.headers().find_map(|(name, value)| name.eq_ignore_ascii_case("retry-after").then_some(value));
    let farewell = asks_for_events.then(|| farewell(response.status(), retry_after)).flatten();
    if let Some(farewell) = farewell {
        let headers = [(CONTENT_TYPE, sse::MEDIA_TYPE), (CACHE_CONTROL, "no-store")];
        return (headers, farewell).into_response();
    }
    let mut answer = http::Response::new(Body::from(response.body().to_owned()));
    *answer.status_mut() = StatusCode::from_u16(response.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in response.headers() {
        let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        // The connection may serve another request.
        if let Some((name, value)) = header.filter(|(name, _)| name != CONNECTION && name != CONTENT_LENGTH) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

/// What the client is told instead of a status that may be another one in a moment: as a WebSocket, which is closed
/// with this code.
fn farewell(status: u16, retry_after: Option<&str>) -> Option<String> {
    let (code, reason, range) = match status {
        429 | 503 => (1013, "try again later", SOON),
        502 | 504 => (1011, "backend error", LATER),
        _ => return None,
    };
    let seconds = retry_after.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default().min(LONGEST_RETRY);
    // So much later, and not all at once.
    let (least, most) = range;
    let milliseconds = retry((least.max(1000 * seconds), most.max(1000 * seconds + most - least)));
    Some(sse::retry(milliseconds) + &sse::close(code, reason))
}

/// Seconds.
const LONGEST_RETRY: u64 = 300;

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn told(refusal: Refusal, asks_for_events: bool) -> (u16, Option<String>, String) {
        let response = response(&refusal, asks_for_events);
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().expect("text").to_owned());
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1000).await.expect("a body");
        (status, content_type, String::from_utf8(body.to_vec()).expect("text"))
    }

    fn milliseconds(farewell: &str) -> u64 {
        let line = farewell.lines().next().expect("a line");
        line.strip_prefix("retry: ").expect("a time").parse().expect("a number")
    }

    #[tokio::test]
    async fn a_browser_comes_back_where_all_may_be_well_again() {
        for (status, code, reason) in [
            (429, 1013, "try again later"),
            (503, 1013, "try again later"),
            (502, 1011, "backend error"),
            (504, 1011, "backend error"),
        ] {
            let (answered, content_type, body) = told(Refusal::with_status(status, "no"), true).await;
            assert_eq!((answered, content_type.as_deref()), (200, Some("text/event-stream")), "{status}");
            let end = format!("\n\nevent: close\ndata: {{\"code\":{code},\"reason\":\"{reason}\"}}\n\n");
            assert!(body.ends_with(&end), "{body}");
            let (answered, _, body) = told(Refusal::with_status(status, "no"), false).await;
            assert_eq!((answered, body.trim_end()), (status, "no"), "who is no browser sees the status");
        }
    }

    #[tokio::test]
    async fn a_refusal_that_stands_is_passed_on() {
        let refusal = Refusal::json(401, "{}").header("X-A", "b");
        for asks_for_events in [true, false] {
            let response = response(&refusal, asks_for_events);
            assert_eq!(response.headers().get("x-a").map(HeaderValue::as_bytes), Some(&b"b"[..]));
            assert!(!response.headers().contains_key(CONNECTION));
            let told = told(refusal.clone(), asks_for_events).await;
            assert_eq!(told, (401, Some("application/json".to_owned()), "{}".to_owned()));
        }
    }

    #[test]
    fn a_client_comes_back_no_earlier_than_it_is_told_to() {
        for (status, retry_after, least, most) in [
            (503, None, 1000, 5000),
            (503, Some("0"), 1000, 5000),
            (503, Some("3"), 3000, 7000),
            (503, Some("30"), 30_000, 34_000),
            (503, Some("9999"), 300_000, 304_000),
            (503, Some("Sun, 06 Nov 1994 08:49:37 GMT"), 1000, 5000),
            (502, None, 5000, 15_000),
            (502, Some("30"), 30_000, 40_000),
        ] {
            for _ in 0..20 {
                let milliseconds = milliseconds(&farewell(status, retry_after).expect("a farewell"));
                assert!((least..=most).contains(&milliseconds), "{status} {retry_after:?}: {milliseconds}");
            }
        }
        for status in [200, 401, 403, 404, 500, 501] {
            assert_eq!(farewell(status, None), None, "{status}");
        }
    }
}
