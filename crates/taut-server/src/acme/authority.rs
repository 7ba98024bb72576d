//! The way to a certificate authority: its account with it, and requests to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use instant_acme::{
    Account, AccountCredentials, BodyWrapper, BytesResponse, Error, ExternalAccountKey, HttpClient, NewAccount,
};

use super::ExternalAccount;
use super::failure::{Failure, UNREACHABLE, Unanswered, WRONG_DIRECTORY, is_bad_nonce};
use super::schedule::LONGEST_RETRY_AFTER;
use super::store::{Store, StoredAccount};
use crate::http::client::Client;

/// A certificate authority.
#[derive(Clone)]
pub(super) struct Authority {
    pub(super) directory: Uri,
    pub(super) contact: Option<String>,
    pub(super) external_account: Option<ExternalAccount>,
    pub(super) client: Client,
    /// Until when it wants to be left alone.
    retry_after: Arc<Mutex<Option<SystemTime>>>,
}

impl Authority {
    pub(super) fn new(
        directory: Uri,
        contact: Option<String>,
        external_account: Option<ExternalAccount>,
        client: Client,
    ) -> Self {
        Self { directory, contact, external_account, client, retry_after: Arc::default() }
    }

    /// The account that is kept, or a new one.
    ///
    /// # Cancel safety
    /// An account that was just made may be forgotten; the next call makes another.
    pub(super) async fn account(&self, store: &Store) -> Result<Account, Failure> {
        let stored = match store.account().await {
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "the kept ACME account is replaced by a new one");
                None
            }
            stored => stored?,
        };
        match stored {
            Some(stored) => self.known_account(stored, store).await,
            None => self.new_account(store).await,
        }
    }

    /// The account that is kept, as it is: for questions that need none by themselves.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub(super) async fn kept_account(&self, store: &Store) -> Result<Option<Account>, Failure> {
        match store.account().await? {
            Some(stored) => self.open_account(stored.credentials).await.map(Some),
            None => Ok(None),
        }
    }

    async fn open_account(&self, credentials: AccountCredentials) -> Result<Account, Failure> {
        let builder = Account::builder_with_http(Box::new(self.clone()));
        Ok(builder.from_credentials(credentials).await?)
    }

    async fn known_account(&self, stored: StoredAccount, store: &Store) -> Result<Account, Failure> {
        let account = self.open_account(stored.credentials).await?;
        if stored.contact != self.contact
            && let Some(stored) = store.account().await?
        {
            let contacts = self.contacts();
            let contacts: Vec<&str> = contacts.iter().map(String::as_str).collect();
            with_fresh_nonces!(account.update_contacts(&contacts))?;
            store.write_account(&StoredAccount { contact: self.contact.clone(), ..stored }).await?;
        }
        Ok(account)
    }

    /// Makes an account in place of the one that is kept, if there is one.
    pub(super) async fn new_account(&self, store: &Store) -> Result<Account, Failure> {
        let contacts = self.contacts();
        let contacts: Vec<&str> = contacts.iter().map(String::as_str).collect();
        let wanted = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
        let external = self.external_account.as_ref();
        let external = external.map(|external| ExternalAccountKey::new(external.id.clone(), &external.key));
        let (account, credentials) = with_fresh_nonces!({
            let builder = Account::builder_with_http(Box::new(self.clone()));
            builder.create(&wanted, self.directory.to_string(), external.as_ref())
        })?;
        let stored = StoredAccount { contact: self.contact.clone(), credentials };
        store.write_account(&stored).await?;
        tracing::info!(account = account.id(), "there is an ACME account, which data-directory keeps");
        Ok(account)
    }

    /// Takes the last `Retry-After`: until when it wants to be left alone.
    pub(super) fn take_retry_after(&self) -> Option<SystemTime> {
        self.retry_after.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn contacts(&self) -> Vec<String> {
        self.contact.iter().map(|address| format!("mailto:{address}")).collect()
    }

    async fn answer(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (mut head, body) = request.into_parts();
        // RFC 8555 §6.1: the client says what it is.
        head.headers.insert(USER_AGENT, PRODUCT);
        let Ok(body) = body.collect().await;
        let request = Request::from_parts(head, Full::new(body.to_bytes()));
        let is_question = request.method() == Method::GET;
        let unreachable = |reason| Unanswered { reason, advice: UNREACHABLE };
        let mut answer = self.client.send(request, ANSWER_WITHIN, LARGEST_ANSWER).await.map_err(unreachable)?;
        let body = answer.body.map_err(unreachable)?;
        if answer.status.is_client_error() || answer.status.is_server_error() {
            self.note_refusal(answer.status, &answer.headers);
            let is_problem = serde_json::from_slice::<serde_json::Map<_, _>>(&body).is_ok();
            if !is_problem {
                let advice = if answer.status.is_client_error() { WRONG_DIRECTORY } else { UNREACHABLE };
                return Err(Unanswered { reason: format!("the answer was {}", answer.status), advice }.into());
            }
        }
        bound_retry_after(&mut answer.headers, is_question, SystemTime::now());
        let mut response = Response::new(Full::new(body));
        (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
        Ok(BytesResponse::from(response))
    }

    /// RFC 8555 §6.6: who is asked too often says when to come back.
    fn note_refusal(&self, status: StatusCode, headers: &HeaderMap) {
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            && let Some(time) = headers.get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()))
        {
            *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = Some(time);
        }
    }
}

impl HttpClient for Authority {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().answer(request))
    }
}

/// Asks anew while the authority refuses only the nonce (RFC 8555 §6.5): the library does so three times, and authorities
/// with many servers may refuse more. A macro, as the compiler cannot yet tell of an `AsyncFnMut` whether its futures are
/// `Send`.
macro_rules! with_fresh_nonces {
    ($ask:expr) => {{
        let mut refused = $crate::acme::authority::RefusedNonces::default();
        loop {
            match $ask.await {
                Err(error) if refused.may_ask_again(&error) => {}
                answer => break answer,
            }
        }
    }};
}

pub(super) use with_fresh_nonces;

/// How often a request was refused for its nonce.
#[derive(Default)]
pub(super) struct RefusedNonces(u32);

impl RefusedNonces {
    pub(super) fn may_ask_again(&mut self, error: &Error) -> bool {
        self.0 += 1;
        self.0 < MOST_NONCES && is_bad_nonce(error)
    }
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<SystemTime> {
    let text = value.to_str().ok()?.trim();
    let seconds = text.parse::<u32>().ok().map(|seconds| now + Duration::from_secs(seconds.into()));
    seconds.or_else(|| httpdate::parse_http_date(text).ok())
}

/// Leaves only such a `Retry-After` that the library can use: it adds any number to its clock, and panics if the sum is
/// not a time. The library needs one in the answer when to renew, where an authority may leave it out; that and the
/// directory are what is asked for by GET.
fn bound_retry_after(headers: &mut HeaderMap, is_question: bool, now: SystemTime) {
    let time = headers.get(RETRY_AFTER).and_then(|value| retry_after(value, now));
    if time.is_none_or(|time| time > now + LONGEST_RETRY_AFTER) {
        headers.remove(RETRY_AFTER);
        if is_question {
            headers.insert(RETRY_AFTER, HeaderValue::from(WITHOUT_SUGGESTION.as_secs()));
        }
    }
}

const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("taut/", env!("CARGO_PKG_VERSION"), " instant-acme"));

/// When an authority is asked again for a window that has not said when, or has none: it may learn to. RFC 9773 §4.3.2
/// advises six hours.
pub(super) const WITHOUT_SUGGESTION: Duration = Duration::from_secs(6 * 3600);

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A chain of certificates has a few KiB.
const LARGEST_ANSWER: usize = 256 * 1024;

/// How often a request is tried of which only the nonce is refused, times three.
const MOST_NONCES: u32 = 5;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    // RFC 9110 §10.2.3.
    #[test]
    fn the_time_to_come_back_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let read = |text: &'static str| retry_after(&HeaderValue::from_static(text), now);
        assert_eq!(read("120"), Some(now + Duration::from_secs(120)));
        assert_eq!(read("Thu, 01 Jan 1970 00:01:00 GMT"), Some(UNIX_EPOCH + Duration::from_secs(60)));
        assert_eq!(read("soon"), None);
        assert_eq!(read("99999999999999999999"), None);
        assert_eq!(read("-1"), None);
    }

    #[test]
    fn whatever_the_authority_sends_the_library_gets_a_time_that_can_be_counted() {
        let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let bounded = |value: Option<&'static str>, is_question| {
            let mut headers = HeaderMap::new();
            value.map(|value| headers.insert(RETRY_AFTER, HeaderValue::from_static(value)));
            bound_retry_after(&mut headers, is_question, now);
            headers.get(RETRY_AFTER).map(|value| value.to_str().expect("text").to_owned())
        };
        for kept in ["0", "604800", "Thu, 01 Jan 1970 00:01:00 GMT"] {
            assert_eq!(bounded(Some(kept), false).as_deref(), Some(kept));
        }
        for huge in ["604801", "18446744073709551615", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "soon"]
        {
            assert_eq!(bounded(Some(huge), false), None, "{huge}");
            assert_eq!(bounded(Some(huge), true).as_deref(), Some("21600"), "{huge}");
        }
        assert_eq!(bounded(None, false), None);
        assert_eq!(bounded(None, true).as_deref(), Some("21600"));
    }

    #[tokio::test]
    async fn a_refused_nonce_is_followed_by_another_and_not_for_ever() {
        let problem = |kind: &str| {
            let json = format!(r#"{{"type": "urn:ietf:params:acme:error:{kind}"}}"#);
            Error::Api(serde_json::from_str(&json).expect("a problem"))
        };
        for (refused, kind, expected) in [(0, "", 1), (2, "badNonce", 3), (9, "badNonce", 5), (9, "malformed", 1)] {
            let mut asked = 0;
            let answer = with_fresh_nonces!({
                asked += 1;
                std::future::ready(if asked > refused { Ok(()) } else { Err(problem(kind)) })
            });
            assert_eq!(answer.is_ok(), refused < expected, "{kind}");
            assert_eq!(asked, expected, "{kind}");
        }
    }
}
