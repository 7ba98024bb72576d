//! A listener of its own for what is not for clients: the console, the metrics. Plain HTTP/1.1 on tokio, apart from the shards.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::Peer;

/// Binds a listener; `serve` needs it on a runtime, this does not.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) fn bind(address: SocketAddr) -> io::Result<(std::net::TcpListener, SocketAddr)> {
    adopt(std::net::TcpListener::bind(address)?)
}

/// Makes one ready for `serve` that is bound already.
///
/// # Errors
/// When it is not a socket that can be used.
pub(crate) fn adopt(listener: std::net::TcpListener) -> io::Result<(std::net::TcpListener, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves every connection, until `draining` is true and the requests that are under way are answered.
///
/// When as many are open as there may be, the one that has been idle longest makes room for the next.
///
/// # Cancel safety
/// Dropped, it ends every connection.
pub(crate) async fn serve(listener: std::net::TcpListener, router: Router, mut draining: watch::Receiver<bool>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listener cannot be served"),
    };
    let router = TowerToHyperService::new(router);
    let mut connections = JoinSet::new();
    let mut open: Vec<Arc<Activity>> = Vec::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some(activity) = place(&mut open) {
                        let served = serve_connection(stream, peer, router.clone(), activity, draining.clone());
                        drop(connections.spawn(served));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a listener for operators could not accept a connection");
                    // Out of file descriptors, most likely: at once it would fail again.
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = async { draining.wait_for(|draining| *draining).await.map(drop) } => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// A place for one more connection. When all are taken, the one that has been idle longest is ended; when none is idle, there is none.
fn place(open: &mut Vec<Arc<Activity>>) -> Option<Arc<Activity>> {
    // Those that have ended have dropped theirs.
    open.retain(|activity| Arc::strong_count(activity) > 1);
    if open.len() >= MOST_CONNECTIONS {
        let idle = open.iter().enumerate().filter_map(|(number, activity)| Some((activity.idle_since()?, number)));
        let (_, longest) = idle.min()?;
        open.swap_remove(longest).hang_up.notify_one();
    }
    let activity = Arc::<Activity>::default();
    open.push(Arc::clone(&activity));
    Some(activity)
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: TowerToHyperService<Router>,
    activity: Arc<Activity>,
    mut draining: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let busy = Arc::clone(&activity);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let busy = Busy::new(&busy);
        request.extensions_mut().insert(Peer(peer));
        let answered = router.call(request);
        async move { answered.await.map(|response: Response| response.map(|body| Sent { body, _busy: busy })) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(LARGEST_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = async {
        tokio::select! {
            served = connection.as_mut() => return served,
            _ = async { draining.wait_for(|draining| *draining).await.map(drop) } => {
                connection.as_mut().graceful_shutdown();
            }
        }
        connection.await
    };
    let served = tokio::select! {
        served = served => served,
        () = activity.hang_up.notified() => return,
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection of an operator ended badly");
    }
}

/// Whether a connection has a request under way, or since when it has none.
#[derive(Debug)]
struct Activity {
    state: Mutex<(usize, Instant)>,
    hang_up: Notify,
}

impl Default for Activity {
    fn default() -> Self {
        Self { state: Mutex::new((0, Instant::now())), hang_up: Notify::new() }
    }
}

impl Activity {
    fn idle_since(&self) -> Option<Instant> {
        let (requests, since) = *self.state();
        (requests == 0).then_some(since)
    }

    fn state(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way, until the last byte of its response is handed over.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.state().0 += 1;
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        *state = (state.0 - 1, Instant::now());
    }
}

/// The body of a response, which keeps its connection busy.
struct Sent {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Connections of one such listener at a time: a few dozen browsers, monitors and load balancers.
const MOST_CONNECTIONS: usize = 256;

/// How long a connection may take for the head of its next request, silence before it included.
const IDLE: Duration = Duration::from_secs(75);

/// Bytes; what hyper may hold of a connection's input, and the most that a head may have.
const LARGEST_BUFFER: usize = 16 * 1024;

/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    struct Server {
        address: SocketAddr,
        draining: watch::Sender<bool>,
        task: JoinHandle<()>,
        /// Lets the requests for `/slow` be answered.
        slow: Arc<Notify>,
    }

    impl Server {
        fn start() -> Self {
            let (listener, address) = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
            let slow = Arc::<Notify>::default();
            let waiting = Arc::clone(&slow);
            let router = Router::new().route("/", get(async || "fast")).route(
                "/slow",
                get(async move || {
                    waiting.notified().await;
                    "slow"
                }),
            );
            let (draining, is_draining) = watch::channel(false);
            Self { address, draining, task: tokio::spawn(serve(listener, router, is_draining)), slow }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("connected")
        }
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
    }

    /// Reads until the text has come; what else there was before it, or all up to the end.
    async fn read(stream: &mut TcpStream, until: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(until) {
            let mut bytes = [0; 1024];
            let count = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes)).await.expect("in time");
            match count {
                Ok(count @ 1..) => text.push_str(std::str::from_utf8(&bytes[..count]).expect("UTF-8")),
                _ => break,
            }
        }
        text
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_connection_that_was_idle_longest_makes_room() {
        let server = Server::start();
        let mut busy = server.connect().await;
        ask(&mut busy, "/slow").await;
        let mut idle = Vec::new();
        for _ in 1..MOST_CONNECTIONS {
            let mut stream = server.connect().await;
            ask(&mut stream, "/").await;
            read(&mut stream, "fast").await;
            idle.push(stream);
        }
        let mut late = server.connect().await;
        ask(&mut late, "/").await;
        assert!(read(&mut late, "fast").await.starts_with("HTTP/1.1 200 "));
        assert_eq!(read(&mut idle[0], "never").await, "", "it was idle longest");
        ask(&mut idle[1], "/").await;
        assert!(read(&mut idle[1], "fast").await.ends_with("fast"), "it was not");
        server.slow.notify_one();
        assert!(read(&mut busy, "slow").await.ends_with("slow"), "it was not idle");
    }

    #[tokio::test]
    async fn a_drain_answers_what_is_under_way_and_takes_nothing_more() {
        let server = Server::start();
        let (mut idle, mut busy) = (server.connect().await, server.connect().await);
        ask(&mut idle, "/").await;
        read(&mut idle, "fast").await;
        ask(&mut busy, "/slow").await;
        // Once this is answered, the one before it has been read.
        server.slow.notify_one();
        read(&mut busy, "slow").await;
        ask(&mut busy, "/slow").await;
        ask(&mut idle, "/").await;
        read(&mut idle, "fast").await;
        server.draining.send_replace(true);
        assert_eq!(read(&mut idle, "never").await, "");
        server.slow.notify_one();
        let answered = read(&mut busy, "never").await;
        assert!(answered.contains("connection: close") && answered.ends_with("slow"), "{answered}");
        server.task.await.expect("no panic");
        TcpStream::connect(server.address).await.expect_err("nobody listens");
    }
}
