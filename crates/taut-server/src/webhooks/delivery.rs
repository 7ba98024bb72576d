//! An attempt to deliver: what is sent, and what the answer means.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;

use crate::address;
use crate::http::client::{self, Client};
use crate::trace::Span;

use super::address::headers;
use super::queue::{Attempt, Verdict};

/// Makes an attempt, within ten seconds.
///
/// # Cancel safety
/// Dropped midway, the request may have been taken or not.
pub(super) async fn make(client: &Client, attempt: &Attempt) -> Verdict {
    let mut request = match prepare(attempt) {
        Ok(request) => request,
        Err(reason) => return Verdict::Hopeless(reason),
    };
    let traced = Span::asking("webhook", attempt.app.id(), &mut request);
    let answer = client.send(request, TIMEOUT, LARGEST_ANSWER).await;
    traced.heard(answer.as_ref().map(|answer| answer.status).map_err(String::as_str));
    match answer {
        Ok(answer) if answer.status.is_success() => Verdict::Delivered,
        Ok(answer) => Verdict::Failed(answer.refused("anything but 2xx is a failure")),
        Err(reason) => Verdict::Failed(reason),
    }
}

/// Makes the request out of what is configured now: the secret may have been replaced while this waited.
fn prepare(attempt: &Attempt) -> Result<Request<Full<Bytes>>, String> {
    let snapshot = attempt.app.snapshot();
    if !snapshot.known {
        return Err("the app is no longer configured".to_owned());
    }
    let mut same_address = snapshot.config.webhooks.iter().filter(|webhook| *webhook.url == *attempt.target.url);
    let first = same_address.clone().next();
    let webhook = same_address.nth(attempt.target.nth as usize).or(first);
    let webhook = webhook.ok_or("there is no webhook with this address in the app's configuration")?;
    let uri = address::parse(&webhook.url).map_err(|error| error.to_string())?;
    let mut request = client::post(uri, snapshot.config.key(), attempt.payload.body())?;
    for header in headers(webhook) {
        let (name, value) = header.map_err(|error| error.to_string())?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// For all of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read, and thrown away.
const LARGEST_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::app::{AppConfig, Limits, Webhook};
    use crate::apps::Apps;
    use crate::http::testing::{Answer, Receiver};
    use crate::place::AppIndex;
    use crate::webhooks::payload::Payload;
    use crate::webhooks::queue::Target;

    async fn verdict(answer: Answer) -> Verdict {
        let receiver = Receiver::start(answer).await;
        let url = receiver.url("/");
        let app = AppConfig { webhooks: vec![Webhook::new(&*url)], ..AppConfig::development() };
        let app = Arc::clone(&Apps::new([app], &Limits::default()).expect("one app").all()[0]);
        let target = Target { app: AppIndex::new(0), url: url.into(), nth: 0 };
        make(&Client::new(), &Attempt { id: 1, app, target, payload: Payload::new(5, "{}") }).await
    }

    #[tokio::test]
    async fn a_status_of_success_is_a_delivery_whatever_follows_and_nothing_else_is() {
        for answer in [Answer::Ok, Answer::Endless] {
            assert_eq!(verdict(answer).await, Verdict::Delivered, "{answer:?}");
        }
        let reason = "the answer was 410 Gone: anything but 2xx is a failure";
        assert_eq!(verdict(Answer::Fail(410)).await, Verdict::Failed(reason.to_owned()));
        let Verdict::Failed(reason) = verdict(Answer::Redirect).await else { panic!("a redirect is no success") };
        assert!(reason.contains("redirects are not followed"), "{reason}");
    }
}
