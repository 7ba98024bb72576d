//! Requests to others.

use std::error::Error;
use std::sync::Arc;

use http::header::{HeaderValue, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

/// Sends requests, over connections that are kept for the next ones. It follows no redirect.
#[derive(Debug)]
pub(super) struct Client {
    plain: legacy::Client<HttpConnector, Full<Bytes>>,
    /// Made when it is first needed: that takes the roots of the system, which not every system has.
    secure: OnceCell<Secure>,
}

type Secure = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

impl Client {
    /// One that trusts the roots of the system, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub(super) fn new() -> Self {
        Self { plain: builder().build(connector()), secure: OnceCell::new() }
    }

    /// Sends a request and reads the whole answer, of at most so many bytes.
    ///
    /// # Cancel safety
    /// Dropped midway, the request may have been taken or not.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<(StatusCode, Bytes), String> {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(concat!("taut/", env!("CARGO_PKG_VERSION"))));
        let response = if request.uri().scheme() == Some(&Scheme::HTTPS) {
            self.secure.get_or_try_init(secure).await?.request(request).await
        } else {
            self.plain.request(request).await
        };
        let response = response.map_err(|error| explain(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), most).collect().await;
        let body = body.map_err(|_| format!("the answer ended too early, or is larger than {most} bytes"))?;
        Ok((status, body.to_bytes()))
    }
}

fn builder() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).http1_max_buf_size(LARGEST_HEAD);
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
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(connector());
    Ok(builder().build(connector))
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

/// Bytes of an answer's head.
const LARGEST_HEAD: usize = 16 * 1024;

/// Characters of each part of an explanation.
const LONGEST_REASON: usize = 200;
