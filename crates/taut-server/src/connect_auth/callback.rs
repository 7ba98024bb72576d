//! Asking the application whom it lets in.

use std::net::IpAddr;

use http::StatusCode;
use serde::Serialize;
use taut_proto::handshake;
use taut_proto::handshake::Refusal;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{Denied, Outcome, check_limits, unavailable};
use crate::address;
use crate::app::Callback;
use crate::apps::AppSnapshot;
use crate::http::client::{self, Client};
use crate::identity::Identity;
use crate::pusher::member::Member;
use crate::refusals::RefusalReason;
use crate::trace::Span;

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
    snapshot: &AppSnapshot,
    callback: &Callback,
    turns: &Semaphore,
    body: String,
) -> Answer {
    let asked = async {
        let deadline = Instant::now() + callback.timeout;
        let Ok(_turn) = timeout_at(deadline, turns.acquire()).await else {
            let Callback { timeout, concurrency, .. } = callback;
            return Err(format!("no free slot within {timeout:?}: {concurrency} requests are in flight already"));
        };
        let uri = address::parse(&callback.url).map_err(|error| error.to_string())?;
        let mut request = client::post(uri, snapshot.config.key(), body)?;
        let traced = Span::asking("upgrade callback", &snapshot.config.id, &mut request);
        let rest = deadline.saturating_duration_since(Instant::now());
        let answer = client.send(request, rest, LARGEST_ANSWER).await;
        traced.heard(answer.as_ref().map(|answer| answer.status).map_err(String::as_str));
        read(snapshot, answer?)
    };
    asked.await.unwrap_or_else(Answer::Failed)
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Accepted(Identity),
    Refused(Refusal),
    Failed(String),
}

impl Answer {
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Accepted(identity) => Ok(identity),
            Self::Refused(refusal) => {
                let why = format!("the application answered {}", refusal.status()).into();
                Err(Denied { refusal, reason: RefusalReason::Callback, why })
            }
            Self::Failed(_) => Err(unavailable("the application did not say whom to let in")),
        }
    }
}

fn read(snapshot: &AppSnapshot, answer: client::Answer) -> Result<Answer, String> {
    let status = answer.status;
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let words = answer.body?;
        let text = String::from_utf8_lossy(&words[..words.len().min(LARGEST_REFUSAL)]).trim().to_owned();
        return Ok(Answer::Refused(Refusal::with_status(status.as_u16(), text)));
    }
    if !status.is_success() {
        return Err(answer.refused("2xx lets a client in, 401 and 403 do not"));
    }
    let answer = answer.body?;
    let member = str::from_utf8(&answer).ok().and_then(|answer| Member::parse(answer).ok());
    let Member { user_id, user_info } = member.ok_or("the answer is not a JSON object with a user_id")?;
    let identity = Identity { user_id: user_id.into(), user_info: user_info.as_deref().map(Box::from) };
    check_limits(&identity, &snapshot.limits).map_err(|flaw| flaw.to_string())?;
    Ok(Answer::Accepted(identity))
}

/// Bytes of an answer.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Bytes of the application's own words that a client is refused with.
const LARGEST_REFUSAL: usize = 4 * 1024;
