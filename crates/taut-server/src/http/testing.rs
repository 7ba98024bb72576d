//! A server that takes requests, for the tests of what sends some.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What a receiver does with requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    Ok,
    Fail(u16),
    Redirect,
    /// 2xx and a body that does not end.
    Endless,
    /// Nothing, until it is to answer otherwise.
    Never,
    /// So many of a hundred fail, some of them after they were taken.
    Sometimes(u8),
}

/// A server that takes requests.
pub(crate) struct Receiver {
    address: SocketAddr,
    answer: watch::Sender<Answer>,
    taken: Arc<Taken>,
    task: JoinHandle<()>,
}

struct Taken {
    requests: Mutex<Vec<Received>>,
    count: Semaphore,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Received {
    fn fields(&self, field: &str) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        let events = body["events"].as_array().expect("a list");
        events.iter().map(|event| event[field].as_str().expect("a text").to_owned()).collect()
    }

    /// The channels of its events.
    pub(crate) fn channels(&self) -> Vec<String> {
        self.fields("channel")
    }

    /// The names of its events.
    pub(crate) fn names(&self) -> Vec<String> {
        self.fields("name")
    }
}

impl Receiver {
    pub(crate) async fn start(answer: Answer) -> Self {
        Self::start_with(answer, None).await
    }

    /// One that speaks TLS, where it is told how.
    pub(crate) async fn start_with(answer: Answer, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (answer, answers) = watch::channel(answer);
        let taken = Arc::new(Taken { requests: Mutex::default(), count: Semaphore::new(0) });
        let all = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (taken, answers, tls) = (Arc::clone(&all), answers.clone(), tls.clone());
                let service = service_fn(move |request| respond(request, Arc::clone(&taken), answers.clone()));
                connections.spawn(async move {
                    // What goes wrong here is what the test is about.
                    match tls {
                        None => drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                });
            }
        });
        Self { address, answer, taken, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// The next request that was taken.
    pub(crate) async fn next(&self) -> Received {
        let permit = timeout(Duration::from_secs(20), self.taken.count.acquire()).await;
        permit.expect("a request").expect("an open semaphore").forget();
        self.taken.requests.lock().expect("no panic").remove(0)
    }

    /// All that were taken and not asked for yet.
    pub(crate) fn requests(&self) -> Vec<Received> {
        let requests = std::mem::take(&mut *self.taken.requests.lock().expect("no panic"));
        self.taken.count.forget_permits(requests.len());
        requests
    }
}

/// A port where nobody listens. It is taken, so that no other test can be given it meanwhile.
pub(crate) struct Nobody(TcpSocket);

impl Nobody {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        Self(socket)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.0.local_addr().expect("an address"))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(
    request: http::Request<Incoming>,
    taken: Arc<Taken>,
    mut answers: watch::Receiver<Answer>,
) -> Result<Response<Answered>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(answered(400)) };
    let received = Received {
        method: head.method.to_string(),
        uri: head.uri.to_string(),
        headers: head.headers,
        body: body.to_bytes().to_vec(),
    };
    let chance = getrandom::u64().expect("randomness");
    let take = || {
        taken.requests.lock().expect("no panic").push(received);
        taken.count.add_permits(1);
    };
    // The sender lives as long as the test.
    let Ok(answer) = answers.wait_for(|answer| *answer != Answer::Never).await.map(|answer| *answer) else {
        return Ok(answered(503));
    };
    Ok(match answer {
        Answer::Sometimes(percent) if chance % 100 < u64::from(percent) => {
            if chance & (1 << 40) > 0 {
                take();
            }
            answered(500)
        }
        Answer::Ok | Answer::Never | Answer::Sometimes(_) => {
            take();
            answered(200)
        }
        Answer::Endless => {
            take();
            Response::new(Answered::Endless)
        }
        Answer::Fail(status) => {
            take();
            answered(status)
        }
        Answer::Redirect => {
            let mut response = answered(307);
            let location = format!("http://{}/elsewhere", head.uri.host().unwrap_or("127.0.0.1"));
            response.headers_mut().insert("location", location.parse().expect("a header"));
            take();
            response
        }
    })
}

fn answered(status: u16) -> Response<Answered> {
    let mut response = Response::new(Answered::Whole(Full::new(Bytes::from_static(b"thanks"))));
    *response.status_mut() = status.try_into().expect("a status");
    response
}

/// The body of an answer.
enum Answered {
    Whole(Full<Bytes>),
    Endless,
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => std::pin::Pin::new(body).poll_frame(context),
            Self::Endless => {
                std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
            }
        }
    }
}
