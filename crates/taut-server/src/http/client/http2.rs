//! HTTP/2 to hosts that offer it in the TLS handshake (ALPN): all requests to a host share one connection.
//!
//! This uses h2 and not hyper's client, which does not tell whether a request has left, and takes a reset with
//! `CANCEL` in the middle of an answer for its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::Authority;
use http::{Request, Uri};
use hyper::body::Bytes;
use hyper::service::Service as _;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep, timeout};

use super::{Answer, LARGEST_HEAD, Unanswered, explain, too_long};

/// The hosts that requests were sent to, each with its connection.
#[derive(Debug)]
pub(super) struct Hosts {
    connect: TowerToHyperService<HttpsConnector<HttpConnector>>,
    known: Mutex<HashMap<Authority, Arc<Host>>>,
}

#[derive(Debug, Default)]
struct Host(AsyncMutex<Known>);

/// What is known of a host.
#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    /// It did not choose HTTP/2. It is asked again then.
    Http1 {
        until: Instant,
    },
    Http2(Connection),
}

/// A connection for any number of requests at a time.
#[derive(Clone, Debug)]
struct Connection {
    sender: SendRequest<Bytes>,
    /// New requests go over another one.
    is_retired: Arc<AtomicBool>,
    used: Instant,
}

/// Why a connection has brought no answer.
#[derive(Debug)]
enum Lost {
    /// It ends, and the host has not processed the request.
    Closing(h2::Error),
    /// The host has not processed the request, and says so.
    Refused(h2::Error),
    Failed(h2::Error),
}

impl Hosts {
    /// `connector` offers `h2` and `http/1.1`.
    pub(super) fn new(connector: HttpsConnector<HttpConnector>) -> Self {
        Self { connect: TowerToHyperService::new(connector), known: Mutex::default() }
    }

    /// Sends a request and reads at most so many bytes of the answer. `None`: the host speaks only HTTP/1.1.
    ///
    /// `has_left` becomes true once the host may have got something of the request.
    ///
    /// # Cancel safety
    /// Dropped midway, the request may have been taken or not. The connection is used for no further request, because
    /// it may be dead; those that it carries go on.
    pub(super) async fn exchange(
        &self,
        request: &Request<Bytes>,
        most: usize,
        has_left: &AtomicBool,
    ) -> Result<Option<Answer>, Unanswered> {
        let untouched = |reason| Unanswered { reason, is_untouched: true };
        let Some(host) = request.uri().authority().map(|authority| self.host(authority)) else { return Ok(None) };
        let mut reason = String::new();
        for _ in 0..MOST_CONNECTIONS {
            let Some(connection) = host.connection(self, request.uri()).await.map_err(untouched)? else {
                return Ok(None);
            };
            match connection.exchange(request, most, has_left).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(Lost::Closing(error)) => reason = explain("the connection ends", Some(&error)),
                Err(Lost::Refused(error)) => return Err(untouched(explain("the request was refused", Some(&error)))),
                Err(Lost::Failed(error)) => {
                    let reason = explain("the request failed", Some(&error));
                    return Err(Unanswered { reason, is_untouched: false });
                }
            }
            has_left.store(false, Ordering::Relaxed);
        }
        Err(untouched(reason))
    }

    fn host(&self, authority: &Authority) -> Arc<Host> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = known.get(authority) {
            return Arc::clone(host);
        }
        if known.len() >= MOST_HOSTS {
            known.retain(|_, host| Arc::strong_count(host) > 1);
        }
        Arc::clone(known.entry(authority.clone()).or_default())
    }

    async fn open(&self, uri: &Uri, host: Weak<Host>) -> Result<Known, String> {
        let failed = |error: &(dyn std::error::Error + 'static)| explain("no connection", Some(error));
        let stream = self.connect.call(uri.clone()).await.map_err(|error| failed(&*error))?;
        if !stream.connected().is_negotiated_h2() {
            return Ok(Known::Http1 { until: Instant::now() + ASKED_AGAIN });
        }
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(LARGEST_HEAD as u32);
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        // Until the host says how many it takes: more would be refused by one that takes fewer.
        builder.initial_max_send_streams(1);
        let (sender, mut driver) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let is_retired = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_retired);
        let pings = driver.ping_pong();
        tokio::spawn(async move {
            tokio::select! {
                result = driver => tracing::debug!(?result, "an HTTP/2 connection has ended"),
                () = watch(pings, &host) => tracing::debug!("an HTTP/2 connection does not answer pings"),
            }
            ended.store(true, Ordering::Relaxed);
        });
        Ok(Known::Http2(Connection { sender, is_retired, used: Instant::now() }))
    }
}

impl Host {
    /// A connection to it that takes requests. `None`: it speaks only HTTP/1.1.
    async fn connection(self: &Arc<Self>, hosts: &Hosts, uri: &Uri) -> Result<Option<Connection>, String> {
        // Those who come while somebody connects wait for that connection.
        let mut known = self.0.lock().await;
        let is_usable = match &*known {
            Known::Nothing => false,
            Known::Http1 { until } => Instant::now() < *until,
            Known::Http2(connection) => !connection.is_retired(),
        };
        if !is_usable {
            *known = Known::Nothing;
            *known = hosts.open(uri, Arc::downgrade(self)).await?;
        }
        let Known::Http2(connection) = &mut *known else { return Ok(None) };
        connection.used = Instant::now();
        Ok(Some(connection.clone()))
    }

    /// Forgets a connection that nobody has used for long. It closes when the last of its answers has come.
    fn forget_idle(&self) {
        let Ok(mut known) = self.0.try_lock() else { return };
        if let Known::Http2(connection) = &*known
            && (connection.is_retired() || connection.used.elapsed() >= IDLE)
        {
            *known = Known::Nothing;
        }
    }
}

impl Connection {
    fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    async fn exchange(self, request: &Request<Bytes>, most: usize, has_left: &AtomicBool) -> Result<Answer, Lost> {
        // If the caller gives up waiting, the connection may be dead.
        let mut unless_done = Retire { is_retired: self.is_retired, is_due: true };
        let response = send(self.sender, request, has_left).await?;
        let answered = match response.await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                Ok(Answer { status: head.status, headers: head.headers, body: read(body, most).await })
            }
            Err(error) => Err(Lost::of(error)),
        };
        unless_done.is_due = matches!(answered, Err(Lost::Closing(_)));
        answered
    }
}

async fn send(
    sender: SendRequest<Bytes>,
    request: &Request<Bytes>,
    has_left: &AtomicBool,
) -> Result<ResponseFuture, Lost> {
    let mut sender = sender.ready().await.map_err(Lost::Closing)?;
    let body = request.body();
    // An error of the connection, since this handle knows of none of a stream: it is over, and nothing has left.
    let lost =
        |error: h2::Error| if error.is_io() || error.is_go_away() { Lost::Closing(error) } else { Lost::Failed(error) };
    let (response, mut stream) = sender.send_request(head_of(request), body.is_empty()).map_err(lost)?;
    has_left.store(true, Ordering::Relaxed);
    if !body.is_empty() {
        // What goes wrong here is what the answer is told of, and a host may answer before it has read everything.
        let _ = stream.send_data(body.clone(), true);
    }
    Ok(response)
}

fn head_of(request: &Request<Bytes>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head.headers_mut().insert(CONTENT_LENGTH, request.body().len().into());
    // Here `:authority` says what `Host` says in HTTP/1.1, and both together must not differ (RFC 9113 §8.3.1).
    let host = head.headers_mut().remove(HOST);
    let mut parts = head.uri().clone().into_parts();
    if let Some(host) = host.and_then(|host| host.as_bytes().try_into().ok()) {
        parts.authority = Some(host);
        if let Ok(uri) = Uri::from_parts(parts) {
            *head.uri_mut() = uri;
        }
    }
    head
}

async fn read(mut body: RecvStream, most: usize) -> Result<Bytes, String> {
    let mut whole = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.ok().filter(|part| whole.len() + part.len() <= most).ok_or_else(|| too_long(most))?;
        whole.extend_from_slice(&part);
        // It fails once nothing more comes, which the next part tells.
        let _ = body.flow_control().release_capacity(part.len());
    }
    Ok(whole.into())
}

/// Asks whether a connection is still there, for as long as it is.
async fn watch(pings: Option<PingPong>, host: &Weak<Host>) {
    let Some(mut pings) = pings else { return };
    loop {
        sleep(PING_INTERVAL).await;
        if let Some(host) = host.upgrade() {
            host.forget_idle();
        }
        if !matches!(timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

impl Lost {
    fn of(error: h2::Error) -> Self {
        // What a host has certainly not processed (RFC 9113 §8.7): streams that it refused, and those above the last
        // id of its GOAWAY. h2 gives the error of a GOAWAY to the latter alone.
        if error.is_remote() && error.is_go_away() {
            Self::Closing(error)
        } else if error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM) {
            Self::Refused(error)
        } else {
            Self::Failed(error)
        }
    }
}

/// Retires a connection when it is dropped, if that is due.
struct Retire {
    is_retired: Arc<AtomicBool>,
    is_due: bool,
}

impl Drop for Retire {
    fn drop(&mut self) {
        if self.is_due {
            self.is_retired.store(true, Ordering::Relaxed);
        }
    }
}

/// How many connections a request is tried on, one after the other, because the host ends them.
const MOST_CONNECTIONS: usize = 3;

/// How long a connection waits for the next request. Longer than one of HTTP/1.1: a host that closes it says which
/// requests it has not processed, so none is lost. Shorter than what nginx grants (75 s).
const IDLE: Duration = Duration::from_secs(60);

/// How often a host is asked whether it is there, and how long it may take to say so. A program that handles one
/// request at a time answers no ping meanwhile, so this is long.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// For how long a host is taken to speak only HTTP/1.1.
const ASKED_AGAIN: Duration = Duration::from_secs(5 * 60);

/// What a host may send of one answer, and of all together, before it was read: the largest answer of a route does not
/// have to wait, and no host can fill the memory.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Hosts that are known before those are forgotten that nobody asks.
const MOST_HOSTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::super::{Client, Secure, trusting};
    use super::*;
    use http_body_util::Full;
    use rustls::{RootCertStore, ServerConfig};
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use std::sync::atomic::AtomicUsize;
    use tokio::net::TcpListener;
    use tokio::sync::{Notify, OnceCell};
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsAcceptor;

    /// What a host does with a request, as its path says.
    async fn answer(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
        let reset = match request.uri().path() {
            "/refuse" => Some(Reason::REFUSED_STREAM),
            "/cancel" => Some(Reason::CANCEL),
            _ => None,
        };
        if let Some(reason) = reset {
            return respond.send_reset(reason);
        }
        let mut body = request.into_body();
        let mut read = 0;
        while let Some(Ok(part)) = body.data().await {
            read += part.len();
            let _ = body.flow_control().release_capacity(part.len());
        }
        let mut stream = respond.send_response(http::Response::new(()), false).expect("a head");
        stream.send_data(Bytes::from(vec![b'x'; read]), true).expect("a body");
    }

    /// A host of HTTP/2 that takes so many streams at a time.
    struct Server {
        port: u16,
        client: Client,
        connections: Arc<AtomicUsize>,
        /// A connection has ended.
        ended: Arc<Notify>,
        task: JoinHandle<()>,
    }

    impl Server {
        async fn start(streams: u32) -> Self {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
            let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
            let mut config = config.with_single_cert(vec![made.cert.der().clone()], key.into()).expect("a key");
            config.alpn_protocols = vec![b"h2".to_vec()];
            let tls = TlsAcceptor::from(Arc::new(config));
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let connections = Arc::new(AtomicUsize::new(0));
            let ended = Arc::new(Notify::new());
            let (counted, over) = (Arc::clone(&connections), Arc::clone(&ended));
            let task = tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let (tls, over) = (tls.clone(), Arc::clone(&over));
                    tokio::spawn(async move {
                        let mut builder = h2::server::Builder::new();
                        builder.max_concurrent_streams(streams);
                        let stream = tls.accept(stream).await.expect("TLS");
                        let mut connection = builder.handshake(stream).await.expect("HTTP/2");
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            tokio::spawn(answer(request, respond));
                        }
                        over.notify_one();
                    });
                }
            });
            let mut roots = RootCertStore::empty();
            roots.add(made.cert.der().clone()).expect("a root");
            let secure: Secure = trusting(roots).expect("a configuration");
            let client = Client { secure: Arc::new(OnceCell::new_with(Some(secure))), ..Client::new() };
            Self { port, client: client.offering_http2(), connections, ended, task }
        }

        async fn send(&self, path: &str, body: Vec<u8>) -> Result<Answer, Unanswered> {
            let uri = format!("https://localhost:{}{path}", self.port);
            let request = Request::post(uri).body(Full::new(Bytes::from(body))).expect("a request");
            self.client.exchange(request, Duration::from_secs(20), 1 << 20).await
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    #[tokio::test]
    async fn all_requests_share_a_connection_and_none_is_refused_for_a_lack_of_streams() {
        let server = Arc::new(Server::start(1).await);
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let server = Arc::clone(&server);
            requests.spawn(async move { server.send("/", vec![b'x'; 200_000]).await });
        }
        while let Some(answered) = requests.join_next().await {
            let answer = answered.expect("no panic").expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.body.expect("a body").len()), (200, 200_000));
        }
        assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn only_what_a_host_has_refused_can_be_sent_again() {
        let server = Server::start(10).await;
        let refused = server.send("/refuse", b"x".to_vec()).await.expect_err("no answer");
        assert!(refused.is_untouched && refused.reason.starts_with("the request was refused: "), "{refused:?}");
        let failed = server.send("/cancel", b"x".to_vec()).await.expect_err("no answer");
        assert!(!failed.is_untouched && failed.reason.starts_with("the request failed: "), "{failed:?}");
    }

    #[tokio::test]
    async fn a_connection_that_nobody_uses_is_closed_and_the_next_request_makes_another() {
        let server = Server::start(10).await;
        server.send("/", b"x".to_vec()).await.expect("an answer");
        for (pass, connections) in [(IDLE / 2, 1), (IDLE, 2)] {
            tokio::time::pause();
            tokio::time::advance(pass).await;
            tokio::time::resume();
            if connections == 2 {
                timeout(Duration::from_secs(20), server.ended.notified()).await.expect("it is closed");
            }
            server.send("/", b"x".to_vec()).await.expect("an answer");
            assert_eq!(server.connections.load(Ordering::Relaxed), connections);
        }
    }

    #[tokio::test]
    async fn while_nobody_is_connected_nothing_has_left() {
        let server = Server::start(10).await;
        let silent = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let uri = format!("https://localhost:{}/", silent.local_addr().expect("an address").port());
        let request = Request::post(uri).body(Full::new(Bytes::from_static(b"x"))).expect("a request");
        let late = server.client.exchange(request, Duration::from_millis(100), 10).await.expect_err("no answer");
        assert!(late.is_untouched && late.reason == "there was no answer within 100ms", "{late:?}");
    }
}
