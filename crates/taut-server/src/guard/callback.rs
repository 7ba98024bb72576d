//! Asking the application whom it lets in.

use std::net::IpAddr;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Serialize;
use taut_proto::handshake;
use taut_proto::handshake::Refusal;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::client::Client;
use super::settings::{self, Callback};
use super::{Identity, unavailable};
use crate::pusher::auth::Signature;
use crate::pusher::member::Member;
use crate::tenants::Terms;

/// What the application is told of a client: JSON.
pub(super) fn body(app: &str, request: &handshake::Request<'_>, address: IpAddr) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        app: &'a str,
        path: &'a str,
        query: &'a str,
        ip: IpAddr,
        headers: Headers<'a>,
    }
    #[derive(Serialize)]
    struct Headers<'a> {
        cookie: Option<&'a str>,
        authorization: Option<&'a str>,
        origin: Option<&'a str>,
    }
    let cookies: Vec<&str> = request.header_values("cookie").collect();
    // RFC 9113 §8.2.3: several are one, with this between them.
    let cookies = cookies.join("; ");
    let headers = Headers {
        cookie: Some(cookies.as_str()).filter(|cookies| !cookies.is_empty()),
        authorization: request.header("authorization"),
        origin: request.origin(),
    };
    let body = Body { app, path: request.path(), query: request.query().unwrap_or_default(), ip: address, headers };
    // Texts and an address can always be written.
    serde_json::to_string(&body).unwrap_or_default()
}

/// Asks, within the time that there is for it.
///
/// # Cancel safety
/// Dropped midway, the application may have been asked or not.
pub(super) async fn ask(
    client: &Client,
    terms: &Terms,
    callback: &Callback,
    turns: &Semaphore,
    body: String,
) -> Answer {
    let asked = async {
        let _turn = turns.acquire().await.map_err(|error| error.to_string())?;
        client.send(request(terms, callback, body)?, LARGEST_ANSWER).await
    };
    match timeout(callback.timeout, asked).await {
        Ok(Ok((status, answer))) => read(terms, status, &answer),
        Ok(Err(reason)) => Answer::Failed(reason),
        Err(_) => Answer::Failed(format!("there was no answer within {:?}", callback.timeout)),
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Accepted(Identity),
    Refused(Refusal),
    Failed(String),
}

impl Answer {
    pub(super) fn outcome(self) -> Result<Identity, Refusal> {
        match self {
            Self::Accepted(identity) => Ok(identity),
            Self::Refused(refusal) => Err(refusal),
            Self::Failed(_) => Err(unavailable()),
        }
    }
}

fn request(terms: &Terms, callback: &Callback, body: String) -> Result<Request<Full<Bytes>>, String> {
    let uri = settings::address(&callback.url).map_err(|error| error.to_string())?;
    let key = terms.app.key();
    let signature = Signature::of(key.secret.reveal(), &[body.as_bytes()]).to_string();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "the app's key is no header".to_owned());
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(KEY, value(&key.key)?);
    headers.insert(SIGNATURE, value(&signature)?);
    Ok(request)
}

fn read(terms: &Terms, status: StatusCode, answer: &[u8]) -> Answer {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let text = String::from_utf8_lossy(&answer[..answer.len().min(LARGEST_REFUSAL)]).trim().to_owned();
        return Answer::Refused(Refusal::with_status(status.as_u16(), text));
    }
    if !status.is_success() {
        return Answer::Failed(format!("the answer was {status}: 2xx lets a client in, 401 and 403 do not"));
    }
    let member = str::from_utf8(answer).ok().and_then(|answer| Member::parse(answer).ok());
    let Some(Member { user_id, user_info }) = member else {
        return Answer::Failed("the answer is no JSON object with a user_id".to_owned());
    };
    let identity = Identity { user_id: user_id.into(), user_info: user_info.map(Box::from) };
    match identity.check(&terms.limits) {
        Ok(()) => Answer::Accepted(identity),
        Err(flaw) => Answer::Failed(flaw.to_string()),
    }
}

const KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");

/// Bytes of an answer.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Bytes of the application's own words that a client is refused with.
const LARGEST_REFUSAL: usize = 4 * 1024;
