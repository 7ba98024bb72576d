//! HTTP on tokio: answers requests of HTTP/1.1 whose connections have left their shards, and sends requests to others.
//!
//! `exchange` carries one request and its response, and gives the connection back to its shard with the bytes that
//! follow. hyper does not serve these connections: it never gives one back, and its parser would judge the same bytes a
//! second time by other rules.

pub(crate) mod answer;
pub(crate) mod body;
mod chunked;
pub(crate) mod client;
mod conn;
mod exchange;
pub(crate) mod listener;
mod permits;
mod response;
mod stream;
#[cfg(test)]
pub(crate) mod testing;

use std::convert::Infallible;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use taut_proto::handshake::Refusal;
use taut_shard::{Handover, Intake, Refused};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use self::conn::Conn;
use self::exchange::Exchange;
use self::permits::{RequestLimiter, RequestPermit};

/// Answers requests, each on a connection that has left its shard for it and goes back there.
pub(crate) struct Service {
    pub(crate) router: Router,
    /// Of the shards, by their numbers.
    pub(crate) intakes: Vec<Intake>,
    /// For whose a request counts, by its connection's peer and its own headers.
    pub(crate) client: Box<ClientAddress>,
    /// Becomes true when the server goes: then connections end with the request that they are at.
    pub(crate) draining: watch::Receiver<bool>,
}

/// Says for whose address a request counts.
pub(crate) type ClientAddress = dyn Fn(SocketAddr, &HeaderMap) -> IpAddr + Send + Sync;

/// A request on its way from a shard.
#[derive(Debug)]
pub(crate) struct Departure {
    /// The shard's number.
    pub(crate) shard: usize,
    pub(crate) handover: Handover,
}

/// Answers every request that comes, until no more can come and the last is answered.
pub(crate) async fn serve(mut departures: mpsc::Receiver<Departure>, service: Service) {
    let service = Arc::new(service);
    let limiter = Arc::new(RequestLimiter::new(MOST_REQUESTS));
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            departure = departures.recv() => match departure {
                Some(departure) => drop(requests.spawn(serve_one(departure, Arc::clone(&service), Arc::clone(&limiter)))),
                None => break,
            },
            Some(_) = requests.join_next() => {}
        }
    }
    while requests.join_next().await.is_some() {}
}

/// Sends a request on its way from its shard. The shard does not wait: when there is no room, the client is told to come back.
pub(crate) fn depart(departures: &mpsc::Sender<Departure>, departure: Departure) {
    if let Err(refused) = departures.try_send(departure) {
        turn_away(refused.into_inner().handover);
    }
}

/// A way for requests from the shards to [`serve`].
pub(crate) fn departures() -> (mpsc::Sender<Departure>, mpsc::Receiver<Departure>) {
    mpsc::channel(MOST_DEPARTING)
}

/// Ends the connection of a request: an extension of each one that has come from a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct HangUp(Arc<Notify>);

impl HangUp {
    /// Ends the connection at once, even if its client reads nothing of the response that is under way.
    pub(crate) fn now(&self) {
        self.0.notify_one();
    }
}

/// The place of a request among those that are under way: an extension of each one that has come from a shard.
#[derive(Clone, Debug)]
pub(crate) struct Place(Arc<Mutex<Option<RequestPermit>>>);

impl Place {
    /// Gives the place to another request, although the response of this one has not ended: what bounds it is counted
    /// elsewhere.
    pub(crate) fn leave(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

async fn serve_one(departure: Departure, service: Arc<Service>, limiter: Arc<RequestLimiter>) {
    let Departure { shard, handover } = departure;
    let peer = handover.peer;
    let conn = match Conn::of(handover) {
        Ok(conn) => conn,
        Err(error) => return tracing::debug!(%peer, %error, "a socket could not be taken over"),
    };
    let Some((exchange, request)) = Exchange::begin(conn) else {
        return tracing::debug!(%peer, "a request could not be read");
    };
    let Some(mut request) = request else {
        // The connection ends with it, however that goes.
        let _ =
            exchange.answer(async { Ok::<_, Infallible>(refusal(StatusCode::BAD_REQUEST, NO_TARGET)) }, || true).await;
        return;
    };
    let permit = limiter.acquire((service.client)(peer, request.headers()));
    let is_busy = permit.is_none();
    let place = Place(Arc::new(Mutex::new(permit)));
    request.extensions_mut().insert(place.clone());
    let hang_up = HangUp::default();
    request.extensions_mut().insert(hang_up.clone());
    request.extensions_mut().insert(Peer(peer));
    let answering = async {
        let is_draining = || *service.draining.borrow();
        if is_busy {
            let busy = async { Ok::<_, Infallible>(refusal(StatusCode::SERVICE_UNAVAILABLE, BUSY)) };
            return exchange.answer(busy, || true).await;
        }
        exchange.answer(TowerToHyperService::new(service.router.clone()).call(request), is_draining).await
    };
    let answered = tokio::select! {
        answered = answering => answered.and_then(|conn| conn.map(|conn| conn.into_handover(peer)).transpose()),
        () = hang_up.0.notified() => return,
    };
    place.leave();
    match answered {
        Ok(None) => {}
        Err(error) => tracing::debug!(%peer, %error, "an HTTP connection ended badly"),
        Ok(Some(handover)) => {
            // A shard that drains takes nothing back: the connection ends here, between two requests.
            if let Some(Err(Refused(handover))) = service.intakes.get(shard).map(|intake| intake.give_back(handover)) {
                drop(handover);
            }
        }
    }
}

fn refusal(status: StatusCode, text: &'static str) -> http::Response<Body> {
    let mut response = http::Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Who is at the other end of a request's connection: an extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

fn turn_away(handover: Handover) {
    let mut response = Vec::new();
    Refusal::busy(Duration::from_secs(1)).write_response(&mut response);
    let Handover { mut stream, tls, .. } = handover;
    // A fresh socket takes a few hundred bytes; if this one does not, its client learns as much from the end.
    let _ = match tls {
        None => stream.write_all(&response),
        Some(mut tls) => {
            let _ = tls.writer().write_all(&response);
            tls.send_close_notify();
            tls.write_tls(&mut stream).map(drop)
        }
    };
}

const BUSY: &str = "The server is busy: too many requests are under way. Please try again.\n";

const NO_TARGET: &str = "The request target is not a URI.\n";

/// Requests under way at a time. While its content is awaited each holds some 4 KiB, and what it carries.
const MOST_REQUESTS: usize = 20_000;

/// Requests on their way from the shards.
const MOST_DEPARTING: usize = 1024;

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::net::{SocketAddr, TcpListener, TcpStream as Blocking};
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};

    use axum::body::{Body, Bytes, to_bytes};
    use axum::routing::{get, post};
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
    use taut_proto::handshake::Request;
    use taut_proto::{CloseCode, Message};
    use taut_shard::{Drain, Drainer, Handler, HandshakeId, Session, Settings, Shard, Verdict};
    use tokio::runtime::Runtime;

    use super::*;

    type Stream = StreamOwned<ClientConnection, Blocking>;

    #[test]
    fn large_bodies_go_both_ways_by_tls_and_the_connection_is_kept() {
        let server = Server::start(departures());
        let mut stream = server.connect();
        for size in [0, 1, 16_384, 16_385, 5_000_000] {
            let body: Vec<u8> = (0..=250).cycle().take(size).collect();
            write!(stream, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").unwrap();
            stream.write_all(&body).unwrap();
            let (head, answered) = response(&mut stream);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(answered == body, "{size} bytes");
        }
        server.stop();
    }

    #[test]
    fn the_content_of_a_request_may_be_that_of_its_response() {
        let server = Server::start(departures());
        let mut stream = server.connect();
        for size in [0, 1, 100_000] {
            let body: Vec<u8> = (0..=250).cycle().take(size).collect();
            write!(stream, "POST /through HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").unwrap();
            stream.write_all(&body).unwrap();
            assert!(response(&mut stream).1 == body, "{size} bytes");
        }
        server.stop();
    }

    #[test]
    fn head_and_body_may_come_in_one_record_or_each_byte_in_one_of_its_own() {
        let server = Server::start(departures());
        let request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        let mut stream = server.connect();
        stream.write_all(request).unwrap();
        assert_eq!(response(&mut stream).1, b"hello");
        let mut stream = server.connect();
        for byte in request {
            stream.write_all(&[*byte]).unwrap();
            stream.flush().unwrap();
        }
        assert_eq!(response(&mut stream).1, b"hello");
        server.stop();
    }

    #[test]
    fn a_client_that_reads_late_gets_everything_and_the_end_by_tls() {
        let server = Server::start(departures());
        let mut stream = server.connect();
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        // Others are served while it does not read.
        let mut other = server.connect();
        other.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!(response(&mut other).1, b"hi");
        let (head, body) = response(&mut stream);
        assert!(head.contains("connection: close"), "{head}");
        assert!(body == vec![7; LARGE]);
        // An end without a close_notify would be an error.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        server.stop();
    }

    #[test]
    fn requests_that_wait_in_one_record_are_answered_in_order() {
        let server = Server::start(departures());
        let mut stream = server.connect();
        let request = |body: &str| format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{body}");
        stream.write_all([request("1"), request("2"), request("3")].concat().as_bytes()).unwrap();
        for body in [b"1", b"2", b"3"] {
            assert_eq!(response(&mut stream).1, body);
        }
        server.stop();
    }

    #[test]
    fn who_finds_no_room_is_told_so_by_tls() {
        let (sender, receiver) = mpsc::channel(1);
        // The one place is taken by a socket that nobody fetches.
        let server = Server::start_without_service(sender, receiver);
        let mut first = server.connect();
        first.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        first.flush().unwrap();
        server.departed.recv().unwrap();
        let mut second = server.connect();
        second.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        second.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        server.stop();
    }

    /// A shard with TLS that hands every request over, and the service behind it.
    struct Server {
        address: SocketAddr,
        client: Arc<ClientConfig>,
        drainer: Drainer,
        intake: Intake,
        shard: JoinHandle<io::Result<()>>,
        /// Says so for every socket that has left.
        departed: std::sync::mpsc::Receiver<()>,
        runtime: Runtime,
        draining: watch::Sender<bool>,
        /// Kept, where nobody serves.
        unserved: Option<mpsc::Receiver<Departure>>,
    }

    impl Server {
        fn start((sender, receiver): (mpsc::Sender<Departure>, mpsc::Receiver<Departure>)) -> Self {
            let mut server = Self::start_without_service(sender, receiver);
            let receiver = server.unserved.take().unwrap();
            let echo = async |body: Body| to_bytes(body, usize::MAX).await.unwrap();
            let large = async || Bytes::from(vec![7; LARGE]);
            let through = async |body: Body| body;
            let router =
                Router::new().route("/echo", post(echo)).route("/through", post(through)).route("/large", get(large));
            let service = Service {
                router,
                intakes: vec![server.intake.clone()],
                client: Box::new(|peer, _| peer.ip()),
                draining: server.draining.subscribe(),
            };
            server.runtime.spawn(serve(receiver, service));
            server
        }

        fn start_without_service(sender: mpsc::Sender<Departure>, receiver: mpsc::Receiver<Departure>) -> Self {
            let (tls, client) = tls();
            let mut settings = Settings::default();
            settings.tls = Some(tls);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (told, departed) = std::sync::mpsc::channel();
            let shard = Shard::new(listener, Door { sender, told }, settings).unwrap();
            let (drainer, intake) = (shard.drainer(), shard.intake());
            let shard = thread::spawn(move || shard.run());
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let draining = watch::Sender::new(false);
            Self { address, client, drainer, intake, shard, departed, runtime, draining, unserved: Some(receiver) }
        }

        fn connect(&self) -> Stream {
            let socket = Blocking::connect(self.address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let name = ServerName::try_from("a.example").unwrap();
            StreamOwned::new(ClientConnection::new(Arc::clone(&self.client), name).unwrap(), socket)
        }

        fn stop(self) {
            let close = CloseCode::GOING_AWAY.into();
            self.drainer.drain(Drain { close, over: Duration::ZERO, deadline: Duration::ZERO });
            self.shard.join().unwrap().unwrap();
        }
    }

    struct Door {
        sender: mpsc::Sender<Departure>,
        told: std::sync::mpsc::Sender<()>,
    }

    impl Handler for Door {
        type User = ();
        type Mail = ();

        fn request<'r>(&mut self, _: &'r Request<'r>, _: SocketAddr, _: HandshakeId) -> Verdict<'r, ()> {
            Verdict::HandOver
        }

        fn message(&mut self, _: &mut Session<'_, ()>, _: Message<'_>) {}

        fn hand_over(&mut self, handover: Handover) {
            depart(&self.sender, Departure { shard: 0, handover });
            let _ = self.told.send(());
        }
    }

    /// Reads one response whose length it says.
    fn response(stream: &mut Stream) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        (head, body)
    }

    fn tls() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.into()], key).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    const LARGE: usize = 5_000_000;
}
