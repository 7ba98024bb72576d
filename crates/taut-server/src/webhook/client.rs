//! The requests themselves.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderName, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::pusher::auth::Signature;

use super::address;
use super::queue::{Attempt, Verdict};

/// Sends requests, over connections that are kept for the next ones. It follows no redirect.
#[derive(Debug)]
pub(super) struct Client {
    plain: legacy::Client<HttpConnector, Full<Bytes>>,
    /// Made when it is first needed: that takes the roots of the system, which not every system has.
    secure: OnceCell<Secure>,
    timeout: Duration,
}

type Secure = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

impl Client {
    /// One that trusts the roots of the system, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub(super) fn new() -> Self {
        Self { plain: builder().build(connector()), secure: OnceCell::new(), timeout: TIMEOUT }
    }

    /// Makes an attempt, from the name of the host to the end of the answer, within ten seconds.
    ///
    /// # Cancel safety
    /// Dropped midway, the request may have been taken or not.
    pub(super) async fn attempt(&self, attempt: &Attempt) -> Verdict {
        let request = match prepare(attempt) {
            Ok(request) => request,
            Err(reason) => return Verdict::Hopeless(reason),
        };
        match timeout(self.timeout, self.send(request)).await {
            Ok(Ok(status)) if status.is_success() => Verdict::Delivered,
            Ok(Ok(status)) if status.is_redirection() => Verdict::Failed(format!(
                "the answer was {status}: redirects are not followed; configure the address that it leads to"
            )),
            Ok(Ok(status)) => Verdict::Failed(format!("the answer was {status}; anything but 2xx is a failure")),
            Ok(Err(reason)) => Verdict::Failed(reason),
            Err(_) => Verdict::Failed(format!("there was no answer within {} seconds", self.timeout.as_secs())),
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
        let response = if request.uri().scheme() == Some(&http::uri::Scheme::HTTPS) {
            self.secure.get_or_try_init(secure).await?.request(request).await
        } else {
            self.plain.request(request).await
        };
        let response = response.map_err(|error| explain(&error))?;
        let status = response.status();
        // A connection whose answer was read to its end can be used again; a long answer is not worth that, and its connection is dropped.
        let _ = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        Ok(status)
    }
}

/// Makes the request out of what is configured now: the secret may have been replaced while this waited.
fn prepare(attempt: &Attempt) -> Result<Request<Full<Bytes>>, String> {
    let terms = attempt.tenant.terms();
    if !terms.known {
        return Err("the app is not configured any more".to_owned());
    }
    let mut same_address = terms.app.webhooks.iter().filter(|webhook| *webhook.url == *attempt.target.url);
    let first = same_address.clone().next();
    let webhook = same_address.nth(attempt.target.nth as usize).or(first);
    let webhook = webhook.ok_or("the app has no webhook with this address any more")?;
    let uri = address::parse(&webhook.url).map_err(|error| error.to_string())?;
    let key = terms.app.key();
    let body = attempt.payload.body();
    let signature = Signature::of(key.secret.reveal(), &[&body]).to_string();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "the app's key is no header".to_owned());
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    // Exactly this: receivers compare it with `===`.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(KEY, value(&key.key)?);
    headers.insert(SIGNATURE, value(&signature)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("taut/", env!("CARGO_PKG_VERSION"))));
    for header in address::headers(webhook) {
        let (name, value) = header.map_err(|error| error.to_string())?;
        headers.insert(name, value);
    }
    Ok(request)
}

fn builder() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
    builder.pool_idle_timeout(IDLE).pool_max_idle_per_host(MOST_IDLE).http1_max_buf_size(LARGEST_HEAD);
    builder
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector
}

async fn secure() -> Result<Secure, String> {
    // Files are read, and more than a hundred certificates parsed.
    let config = spawn_blocking(system_config).await.map_err(|error| error.to_string())??;
    Ok(secure_with(config))
}

fn secure_with(config: ClientConfig) -> Secure {
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(connector());
    builder().build(connector)
}

fn system_config() -> Result<ClientConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
        return Err(format!(
            "there are no root certificates to check the address by: {reason}; install some, or name a file of them in SSL_CERT_FILE"
        ));
    }
    config(roots)
}

fn config(roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

/// An error with what is behind it: the outermost says hardly more than that there is one.
fn explain(error: &legacy::Error) -> String {
    let mut text = if error.is_connect() { "no connection" } else { "the request failed" }.to_owned();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if !text.ends_with(&reason) {
            text.push_str(": ");
            text.extend(reason.chars().take(LONGEST_REASON));
        }
        source = error.source();
    }
    text
}

const KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");

/// For all of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection waits for the next request.
const IDLE: Duration = Duration::from_secs(30);

/// Connections to one address that wait for the next request.
const MOST_IDLE: usize = 4;

/// Bytes of an answer's head.
const LARGEST_HEAD: usize = 16 * 1024;

/// Bytes of an answer that are read, and thrown away.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Characters of each part of an explanation.
const LONGEST_REASON: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{App, Limits, Webhook};
    use crate::tenants::Apps;
    use crate::webhook::payload::Payload;
    use crate::webhook::queue::Target;
    use crate::webhook::testing::{Answer, Receiver};
    use rustls::ServerConfig;
    use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use tokio_rustls::TlsAcceptor;

    fn to(url: &str) -> Attempt {
        let app = App { webhooks: vec![Webhook::new(url)], ..App::development() };
        let tenant = Arc::clone(&Apps::new([app], &Limits::default()).expect("one app").all()[0]);
        let target = Target { tenant: 0, url: url.into(), nth: 0 };
        Attempt { id: 1, tenant, target, payload: Payload::new(5, "{}") }
    }

    async fn failure(client: &Client, url: &str) -> String {
        match client.attempt(&to(url)).await {
            Verdict::Failed(reason) => reason,
            other => panic!("{url}: {other:?}"),
        }
    }

    /// A receiver with a certificate for `localhost` that it has signed itself.
    async fn secure_receiver() -> (Receiver, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .expect("a key");
        let receiver = Receiver::start_with(Answer::Ok, Some(TlsAcceptor::from(Arc::new(config)))).await;
        (receiver, certificate)
    }

    fn trusting(certificate: &CertificateDer<'static>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        let secure = secure_with(config(roots).expect("a configuration"));
        Client { secure: OnceCell::new_with(Some(secure)), ..Client::new() }
    }

    #[tokio::test]
    async fn a_receiver_with_a_trusted_certificate_is_told() {
        let (receiver, certificate) = secure_receiver().await;
        let url = format!("https://localhost:{}/", receiver.port());
        assert_eq!(trusting(&certificate).attempt(&to(&url)).await, Verdict::Delivered);
        assert_eq!(receiver.requests().len(), 1);
    }

    #[tokio::test]
    async fn a_receiver_with_a_wrong_certificate_learns_nothing() {
        let (receiver, certificate) = secure_receiver().await;
        let (_other, other_certificate) = secure_receiver().await;
        let port = receiver.port();
        let unknown = failure(&trusting(&other_certificate), &format!("https://localhost:{port}/")).await;
        assert!(unknown.starts_with("no connection: ") && unknown.contains("certificate"), "{unknown}");
        let other_name = failure(&trusting(&certificate), &format!("https://127.0.0.1:{port}/")).await;
        assert!(other_name.contains("not valid for name"), "{other_name}");
        assert_eq!(receiver.requests().len(), 0);
    }

    #[tokio::test]
    async fn a_redirect_is_a_failure_and_nobody_else_is_asked() {
        let receiver = Receiver::start(Answer::Redirect).await;
        let reason = failure(&Client::new(), &receiver.url("/")).await;
        assert!(reason.contains("307") && reason.contains("redirects are not followed"), "{reason}");
        assert_eq!(receiver.requests().len(), 1);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_waited_for() {
        let receiver = Receiver::start(Answer::Endless).await;
        assert_eq!(Client::new().attempt(&to(&receiver.url("/"))).await, Verdict::Delivered);
    }

    #[tokio::test]
    async fn what_fails_is_explained() {
        let receiver = Receiver::start(Answer::Fail(410)).await;
        let client = Client { timeout: Duration::from_millis(100), ..Client::new() };
        let reason = failure(&client, &receiver.url("/")).await;
        assert_eq!(reason, "the answer was 410 Gone; anything but 2xx is a failure");
        receiver.answer(Answer::Never);
        assert_eq!(failure(&client, &receiver.url("/")).await, "there was no answer within 0 seconds");
        let reason = failure(&client, &receiver.into_closed().await).await;
        assert!(reason.starts_with("no connection: "), "{reason}");
    }
}
