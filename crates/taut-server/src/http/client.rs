//! Requests to others: to whom webhooks are told, to applications that are asked, to issuers of keys.

mod http2;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::app::Key;
use crate::pusher::auth::Signature;

/// Sends requests, over connections that are kept for the next ones. It follows no redirect and goes by no proxy. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    plain: legacy::Client<HttpConnector, Full<Bytes>>,
    /// Made when it is first needed: that takes the roots of the system, which not every system has.
    secure: Arc<OnceCell<Secure>>,
    offers_http2: bool,
}

#[derive(Debug)]
struct Secure {
    http1: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    http2: http2::Hosts,
}

impl Client {
    /// One that speaks HTTP/1.1, and trusts the roots of the system, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub(crate) fn new() -> Self {
        Self { plain: builder().build(connector()), secure: Arc::default(), offers_http2: false }
    }

    /// One that trusts these roots and no others.
    ///
    /// # Errors
    /// The library of TLS cannot be used.
    pub(crate) fn trusting(roots: RootCertStore) -> Result<Self, String> {
        Ok(Self { secure: Arc::new(OnceCell::new_with(Some(trusting(roots)?))), ..Self::new() })
    }

    /// The same, which speaks HTTP/2 to `https` hosts that choose it: for many requests at a time to few hosts.
    pub(crate) fn offering_http2(self) -> Self {
        Self { offers_http2: true, ..self }
    }

    /// Sends a request and reads the answer: all within this time, from the name of the host on, and at most so many bytes.
    ///
    /// # Cancel safety
    /// Dropped midway, the request may have been taken or not.
    ///
    /// # Errors
    /// When there is no whole answer; the reason repeats nothing of the request.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
        most: usize,
    ) -> Result<Answer, String> {
        self.exchange(request, within, most).await.map_err(|unanswered| unanswered.reason)
    }

    /// The same, for whoever may want to send it again.
    ///
    /// # Cancel safety
    /// As with [`send`](Self::send).
    ///
    /// # Errors
    /// As with [`send`](Self::send); the error says whether the receiver may have got something of the request.
    pub(crate) async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        within: Duration,
        most: usize,
    ) -> Result<Answer, Unanswered> {
        name_product(&mut request);
        let has_left = AtomicBool::new(false);
        let answered = async {
            if request.uri().scheme() != Some(&Scheme::HTTPS) {
                has_left.store(true, Ordering::Relaxed);
                return over_http1(&self.plain, request, most).await;
            }
            let secure = self.secure.get_or_try_init(secure).await;
            let secure = secure.map_err(|reason| Unanswered { reason, is_untouched: true })?;
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let request = Request::from_parts(head, body.to_bytes());
            if self.offers_http2
                && let Some(answer) = secure.http2.exchange(&request, most, &has_left).await?
            {
                return Ok(answer);
            }
            has_left.store(true, Ordering::Relaxed);
            over_http1(&secure.http1, request.map(Full::new), most).await
        };
        timeout(within, answered).await.unwrap_or_else(|_| {
            let reason = format!("there was no answer within {within:.0?}");
            Err(Unanswered { reason, is_untouched: !has_left.load(Ordering::Relaxed) })
        })
    }
}

async fn over_http1<C>(
    client: &legacy::Client<C, Full<Bytes>>,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Answer, Unanswered>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let response = client.request(request).await.map_err(|error| {
        let what = if error.is_connect() { "no connection" } else { "the request failed" };
        Unanswered { reason: explain(what, error.source()), is_untouched: error.is_connect() }
    })?;
    let (head, body) = response.into_parts();
    // A connection whose answer was read to its end can be used again; one with a longer answer is dropped.
    let body = Limited::new(body, most).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).map_err(|_| too_long(most));
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// Says whose request it is, unless it says so itself.
pub(crate) fn name_product(request: &mut Request<Full<Bytes>>) {
    request.headers_mut().entry(USER_AGENT).or_insert(PRODUCT);
}

/// Why nothing came back.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// It repeats nothing of the request.
    pub(crate) reason: String,
    /// Nothing of the request has left: it can be sent again.
    pub(crate) is_untouched: bool,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// All of it, or why it could not be read: some care for the status alone.
    pub(crate) body: Result<Bytes, String>,
}

impl Answer {
    /// Says that this answer is none, after what would have been one.
    pub(crate) fn refused(&self, expected: &str) -> String {
        let status = self.status;
        if status.is_redirection() {
            format!("the answer was {status}: redirects are not followed; configure the address that it leads to")
        } else {
            format!("the answer was {status}: {expected}")
        }
    }
}

/// Asks for what is at an address.
pub(crate) fn get(uri: Uri) -> Request<Full<Bytes>> {
    let mut request = Request::default();
    *request.uri_mut() = uri;
    request
}

/// Tells JSON to an address, signed as Pusher signs webhooks.
pub(crate) fn post(uri: Uri, key: &Key, json: impl Into<Bytes>) -> Result<Request<Full<Bytes>>, String> {
    let json = json.into();
    let signature = Signature::of(key.secret.reveal(), &[&json]).to_string();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "the app's key is no header".to_owned());
    let mut request = Request::new(Full::new(json));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    // Exactly this: receivers compare it with `===`.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(KEY, value(&key.key)?);
    headers.insert(SIGNATURE, value(&signature)?);
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
    let roots = spawn_blocking(system_roots).await.map_err(|error| error.to_string())??;
    trusting(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
        return Err(format!(
            "there are no root certificates to check the address by: {reason}; install some, or name a file of them in SSL_CERT_FILE"
        ));
    }
    Ok(roots)
}

fn trusting(roots: RootCertStore) -> Result<Secure, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    let mut offering = config.clone();
    offering.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let http2 = http2::Hosts::new(HttpsConnector::from((connector(), offering)));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(connector());
    Ok(Secure { http1: builder().build(connector), http2 })
}

/// What has failed, with all that is behind it: the outermost error often says only that there is one.
fn explain(what: &str, mut source: Option<&(dyn Error + 'static)>) -> String {
    let mut text = what.to_owned();
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

fn too_long(most: usize) -> String {
    format!("the answer ended too early, or is larger than {most} bytes")
}

const KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");
const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("taut/", env!("CARGO_PKG_VERSION")));

/// How long a connection of HTTP/1.1 waits for the next request. Shorter than any server in use waits for one (gunicorn: 2 s, Node and
/// uvicorn: 5 s): a server that closes while a request is on its way leaves open whether it has got it.
const IDLE: Duration = Duration::from_millis(1500);

/// Connections to one host that wait for the next request: as many as an application is asked at a time.
const MOST_IDLE: usize = 64;

/// Bytes of an answer's head.
const LARGEST_HEAD: usize = 16 * 1024;

/// Characters of each part of an explanation.
const LONGEST_REASON: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address;
    use crate::http::testing::{self, Nobody, Receiver};
    use rustls::ServerConfig;
    use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use tokio_rustls::TlsAcceptor;

    async fn send(client: &Client, url: &str) -> Result<Answer, String> {
        client.send(get(address::parse(url).expect(url)), Duration::from_secs(20), 1024).await
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
        let receiver = Receiver::start_with(testing::Answer::Ok, Some(TlsAcceptor::from(Arc::new(config)))).await;
        (receiver, certificate)
    }

    fn client_trusting(certificate: &CertificateDer<'static>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        Client::trusting(roots).expect("a configuration")
    }

    #[tokio::test]
    async fn a_receiver_with_a_trusted_certificate_is_asked() {
        let (receiver, certificate) = secure_receiver().await;
        let url = format!("https://localhost:{}/", receiver.port());
        let client = client_trusting(&certificate);
        // This receiver does not choose HTTP/2.
        for client in [client.clone(), client.offering_http2()] {
            let answer = send(&client, &url).await.expect("an answer");
            assert_eq!((answer.status.as_u16(), &*answer.body.expect("a body")), (200, &b"thanks"[..]));
            assert_eq!(receiver.requests().len(), 1);
        }
    }

    #[tokio::test]
    async fn a_receiver_with_a_wrong_certificate_learns_nothing() {
        let (receiver, certificate) = secure_receiver().await;
        let (_other, other_certificate) = secure_receiver().await;
        let port = receiver.port();
        let url = format!("https://localhost:{port}/?hunter2");
        let unknown = send(&client_trusting(&other_certificate), &url).await.expect_err("another's certificate");
        assert!(unknown.starts_with("no connection: ") && unknown.contains("certificate"), "{unknown}");
        assert!(!unknown.contains("hunter2"), "{unknown}");
        let url = format!("https://127.0.0.1:{port}/");
        let other_name = send(&client_trusting(&certificate), &url).await.expect_err("another's name");
        assert!(other_name.contains("not valid for name"), "{other_name}");
        assert_eq!(receiver.requests().len(), 0);
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let receiver = Receiver::start(testing::Answer::Redirect).await;
        let answer = send(&Client::new(), &receiver.url("/")).await.expect("an answer");
        let reason = answer.refused("200 is expected");
        assert!(reason.contains("307") && reason.contains("redirects are not followed"), "{reason}");
        assert_eq!(receiver.requests().len(), 1);
    }

    #[tokio::test]
    async fn of_an_answer_without_end_the_status_is_told_and_no_body() {
        let receiver = Receiver::start(testing::Answer::Endless).await;
        let answer = send(&Client::new(), &receiver.url("/")).await.expect("a status");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body.expect_err("no end"), "the answer ended too early, or is larger than 1024 bytes");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_not_waited_for() {
        let receiver = Receiver::start(testing::Answer::Never).await;
        let request = get(address::parse(&receiver.url("/")).expect("an address"));
        let reason = Client::new().send(request, Duration::from_millis(100), 0).await.expect_err("nothing");
        assert_eq!(reason, "there was no answer within 100ms");
        let reason = send(&Client::new(), &Nobody::new().url()).await.expect_err("nobody there");
        assert!(reason.starts_with("no connection: "), "{reason}");
    }
}
