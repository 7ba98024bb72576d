//! Carries a request to a backend: over HTTP, or to a script over FastCGI. WebSockets begin with one, too.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::time::Instant;

use crate::address;
use crate::gateway::fastcgi;
use crate::gateway::head::Head;
use crate::gateway::route::Backend;
use crate::http::client::{self, Client, Unanswered};

/// The way to one backend.
#[derive(Debug)]
pub(super) enum Carrier {
    Http(Uri),
    FastCgi(Script),
    /// Its address as one of HTTP.
    WebSocket(Uri),
}

#[derive(Debug)]
pub(super) struct Script {
    address: fastcgi::Address,
    /// `SCRIPT_FILENAME`, `DOCUMENT_ROOT` and `SCRIPT_NAME`.
    file: Box<str>,
    root: Box<str>,
    name: Box<str>,
}

/// What a backend is told.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) body: Bytes,
    /// Of the body, if there is one.
    pub(super) content_type: Option<&'static str>,
    /// Beside what the client has sent.
    pub(super) headers: Vec<(String, String)>,
    /// It is for the client's own path and query, below the backend's.
    pub(super) is_for_path: bool,
}

/// What a backend says.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(Box<str>, Box<str>)>,
    pub(crate) body: Bytes,
}

/// What has come of a request that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) replied: Result<Reply, Unanswered>,
    /// What a script has written to its error log.
    pub(super) stderr: fastcgi::Stderr,
}

/// A request as it may be shown.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) address: String,
    pub(crate) script: Option<String>,
    /// In the order in which they are sent.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn pairs(&self) -> Vec<(&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, value.as_bytes())).collect()
    }

    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

impl Carrier {
    pub(super) fn new(backend: &Backend) -> Result<Self, String> {
        match backend {
            Backend::Http { url } => address::parse(url).map(Self::Http).map_err(|invalid| invalid.to_string()),
            Backend::WebSocket { url } => {
                address::parse_websocket(url).map(Self::WebSocket).map_err(|invalid| invalid.to_string())
            }
            Backend::FastCgi { address, script, root } => {
                let text = |path: &std::path::Path| {
                    path.to_str().map(Box::<str>::from).ok_or_else(|| "the script's path is no text".to_owned())
                };
                let address = fastcgi::Address::parse(address).map_err(|invalid| invalid.to_string())?;
                let file = text(script)?;
                let root = root.as_deref().or_else(|| script.parent()).map_or_else(|| Ok("/".into()), text)?;
                let below = file.strip_prefix(root.trim_end_matches('/')).filter(|rest| rest.starts_with('/'));
                let name = below.map_or_else(
                    || file.rsplit('/').next().map(|name| format!("/{name}")).unwrap_or_default(),
                    str::to_owned,
                );
                Ok(Self::FastCgi(Script { address, file, root, name: name.into() }))
            }
        }
    }

    /// The address of a WebSocket for a client: its path and query below the backend's.
    pub(super) fn url(&self, head: &Head) -> Result<String, Unanswered> {
        let (Self::Http(uri) | Self::WebSocket(uri)) = self else {
            return Err(Unanswered { reason: "a script has no address".to_owned(), is_untouched: true });
        };
        let url = below(uri, head)?.to_string();
        Ok(url.replacen("http", "ws", 1))
    }

    /// How a request looks, for a person: without what is secret in a backend's address.
    pub(super) fn show(&self, head: &Head, request: Request) -> Shown {
        match self {
            Self::Http(uri) => {
                let http = http_request(uri, head, &request).map(|mut http| {
                    client::name_product(&mut http);
                    http
                });
                let headers = http.iter().flat_map(http::Request::headers).map(|(name, value)| {
                    (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                });
                let own = http.as_ref().ok().filter(|_| request.is_for_path).map(|http| http.uri().to_string());
                let address = own.unwrap_or_else(|| address::shown(&uri.to_string()));
                Shown { address, script: None, headers: headers.collect(), body: request.body }
            }
            Self::FastCgi(script) => {
                let fields = request.fields(head).into_iter();
                let content_type = request.content_type.map(|value| ("Content-Type".to_owned(), value.to_owned()));
                let headers = fields.map(|(name, value)| (name.to_owned(), value.into_owned())).chain(content_type);
                let (address, file) = (script.address.to_string(), script.file.to_string());
                Shown { address, script: Some(file), headers: headers.collect(), body: request.body }
            }
            Self::WebSocket(uri) => {
                let address = self.url(head).unwrap_or_else(|_| address::shown(&uri.to_string()));
                let fields = request.fields(head).into_iter();
                let headers = fields.map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
                Shown { address, script: None, headers, body: request.body }
            }
        }
    }

    /// Sends a request, and reads the whole answer by then.
    ///
    /// # Cancel safety
    /// Dropped midway, the backend may have taken the request or not.
    pub(super) async fn send(&self, client: &Client, head: &Head, request: &Request, deadline: Instant) -> Sent {
        match self {
            Self::Http(uri) => {
                let replied = over_http(client, uri, head, request, deadline).await;
                Sent { replied, stderr: fastcgi::Stderr::default() }
            }
            Self::FastCgi(script) => script.send(head, request, deadline).await,
            Self::WebSocket(_) => {
                let reason = "a backend with WebSockets is sent no requests".to_owned();
                Sent { replied: Err(Unanswered { reason, is_untouched: true }), stderr: fastcgi::Stderr::default() }
            }
        }
    }
}

async fn over_http(
    client: &Client,
    uri: &Uri,
    head: &Head,
    request: &Request,
    deadline: Instant,
) -> Result<Reply, Unanswered> {
    let http = http_request(uri, head, request)?;
    let within = deadline.saturating_duration_since(Instant::now());
    let answer = client.exchange(http, within, MOST_ANSWER).await?;
    let body = answer.body.map_err(|reason| Unanswered { reason, is_untouched: false })?;
    let text = |value: &HeaderValue| str::from_utf8(value.as_bytes()).ok().map(Into::into);
    let headers = answer.headers.iter().filter_map(|(name, value)| Some((name.as_str().into(), text(value)?)));
    Ok(Reply { status: answer.status.as_u16(), headers: headers.collect(), body })
}

fn http_request(uri: &Uri, head: &Head, request: &Request) -> Result<http::Request<Full<Bytes>>, Unanswered> {
    let mut http = http::Request::new(Full::new(request.body.clone()));
    *http.method_mut() = request.method.clone();
    *http.uri_mut() = if request.is_for_path { below(uri, head)? } else { uri.clone() };
    add_headers(http.headers_mut(), head, request);
    Ok(http)
}

/// The client's path and query below a backend's address.
fn below(uri: &Uri, head: &Head) -> Result<Uri, Unanswered> {
    let query = if head.query.is_empty() { String::new() } else { format!("?{}", head.query) };
    let target = format!("{}{}{query}", uri.path().trim_end_matches('/'), head.path);
    let mut parts = uri.clone().into_parts();
    let invalid = |_| Unanswered { reason: "the client's path is none".to_owned(), is_untouched: false };
    parts.path_and_query = Some(target.parse().map_err(invalid)?);
    Uri::from_parts(parts).map_err(|_| Unanswered { reason: "the address is none".to_owned(), is_untouched: false })
}

fn add_headers(headers: &mut HeaderMap, head: &Head, request: &Request) {
    for (name, value) in request.fields(head) {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    headers.extend(request.content_type.map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))));
}

impl Request {
    /// The headers: those that the client sent and the route passes on, and ours.
    pub(super) fn fields<'a>(&'a self, head: &'a Head) -> Vec<(&'a str, Cow<'a, str>)> {
        let mut fields: Vec<(&str, Cow<'_, str>)> =
            head.headers.iter().map(|(name, value)| (&**name, (&**value).into())).collect();
        fields.push(("X-Forwarded-For", head.address.to_string().into()));
        fields.push(("X-Forwarded-Proto", if head.is_secure { "https" } else { "http" }.into()));
        fields.push(("X-Forwarded-Host", (&*head.host).into()));
        fields.extend(self.headers.iter().map(|(name, value)| (&**name, (&**value).into())));
        fields
    }
}

impl Script {
    async fn send(&self, head: &Head, request: &Request, deadline: Instant) -> Sent {
        let fields = request.fields(head);
        let headers: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let (request_uri, query_string): (Cow<'_, str>, &str) = match (request.is_for_path, &*head.query) {
            (false, _) => ((&*self.name).into(), ""),
            (true, "") => ((&*head.path).into(), ""),
            (true, query) => (format!("{}?{query}", head.path).into(), query),
        };
        let parameters = fastcgi::Parameters {
            method: request.method.as_str(),
            script_filename: &self.file,
            document_root: &self.root,
            script_name: &self.name,
            request_uri: &request_uri,
            query_string,
            protocol: "HTTP/1.1",
            content_type: request.content_type,
            remote: SocketAddr::new(head.address, head.port),
            server: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            server_name: head.host.split(':').next().unwrap_or_default(),
            is_https: head.is_secure,
            headers: &headers,
        };
        let request = fastcgi::Request { parameters, body: &request.body };
        let limits = fastcgi::Limits { connect: LONGEST_CONNECT, answer: MOST_ANSWER };
        let (replied, stderr) = match fastcgi::request(&self.address, &request, deadline, &limits).await {
            Ok(answer) => {
                let headers = answer
                    .head
                    .headers
                    .into_iter()
                    .filter_map(|(name, value)| Some((name.into(), String::from_utf8(value).ok()?.into())));
                let reply = Reply { status: answer.head.status, headers: headers.collect(), body: answer.body.into() };
                (Ok(reply), answer.stderr)
            }
            Err(failure) => {
                let unanswered = Unanswered { reason: failure.to_string(), is_untouched: failure.is_untouched() };
                (Err(unanswered), failure.stderr)
            }
        };
        self.note(&stderr);
        Sent { replied, stderr }
    }

    /// Tells the log what a script has said on its error stream.
    fn note(&self, stderr: &fastcgi::Stderr) {
        if !stderr.is_empty() {
            let (script, left_out) = (&*self.file, stderr.dropped());
            tracing::warn!(script, left_out, stderr = %stderr.text().trim(), "a script has written to its error log");
        }
    }
}

/// Bytes of an answer.
const MOST_ANSWER: usize = 1 << 20;

const LONGEST_CONNECT: Duration = Duration::from_secs(1);
