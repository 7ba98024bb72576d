//! One request and its response, on a connection that has left its shard for them.
//!
//! The head was found and judged on the shard, and is parsed here by the same parser. Of what follows, its own content is
//! read and not a byte more is used: what is behind it goes back to the shard, which judges the next head.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Response, Uri, Version};
use hyper::body::{Body as _, Bytes, Frame, SizeHint};
use taut_proto::handshake::{Framing, HeadLimits, HeadScan, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep, timeout};

use super::chunked::Chunks;
use super::conn::Conn;
use super::response::{Asked, Transfer, write_head};

/// A request that is to be answered, and its connection.
pub(super) struct Exchange<S> {
    shared: Arc<Shared<S>>,
    asked: Asked,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Exchange<S> {
    /// Reads the head that the connection's input begins with; gives the request with it, unless there is no routing it: its
    /// target is no URI. The connection is lost when there is no head.
    pub(super) fn begin(mut conn: Conn<S>) -> Option<(Self, Option<http::Request<Body>>)> {
        let mut scan = HeadScan::new();
        let end = scan.find(conn.input(), &HeadLimits::default()).ok()??;
        let (asked, upload, mut request) = {
            let head = Request::parse_found(conn.input(), &scan).ok()?;
            let has_more = conn.input().len() > end;
            (asked(&head), Upload::of(&head, has_more), request_of(&head))
        };
        conn.use_input(end);
        let is_lent = !upload.is_over() && request.is_some();
        let shared = Arc::new(Shared(Mutex::new(State { conn: Some(conn), upload, is_lent })));
        if let Some(request) = request.as_mut().filter(|_| is_lent) {
            *request.body_mut() = Body::new(Content(Arc::clone(&shared)));
        }
        Some((Self { shared, asked }, request))
    }

    /// Answers the request, and gives the connection back if it may be kept; otherwise it has been ended. `is_last` says
    /// whether no other request is to follow when the response's head is written.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection.
    pub(super) async fn answer<F, E>(
        self,
        response: F,
        is_last: impl Fn() -> bool + Unpin,
    ) -> io::Result<Option<Conn<S>>>
    where
        F: Future<Output = Result<Response<Body>, E>>,
    {
        let keep = {
            let response = std::pin::pin!(response);
            let answer = Answer {
                shared: &self.shared,
                asked: self.asked,
                is_last,
                stage: Stage::Awaited(response),
                stalled: None,
            };
            answer.run().await?
        };
        let Some(mut conn) = self.shared.state().conn.take() else { return Ok(None) };
        // Whoever still has the content gets no more of it.
        let mut upload = std::mem::replace(&mut self.shared.state().upload, Upload::nothing());
        let is_read = upload.is_over() || keep && upload.discard(&mut conn, MOST_DISCARDED).await;
        // Whoever has ended its side asks nothing more, unless that is here already.
        if keep && is_read && !(conn.is_at_end() && conn.input().is_empty()) {
            return Ok(Some(conn));
        }
        let is_unread = !is_read || !conn.input().is_empty();
        // However it ends, it is over.
        let _ = timeout(LONGEST_END, end(&mut conn, is_unread)).await;
        Ok(None)
    }
}

/// Ends our side, and reads to the peer's end if it still sends, within reason: closed then, the connection would be reset,
/// and what was written last might be lost on the way.
async fn end<S: AsyncRead + AsyncWrite + Unpin>(conn: &mut Conn<S>, is_unread: bool) -> io::Result<()> {
    poll_fn(|context| conn.poll_shutdown(context)).await?;
    let mut read = 0;
    while is_unread && !conn.is_at_end() && read < MOST_UNREAD {
        let unread = conn.input().len();
        conn.use_input(unread);
        read += poll_fn(|context| conn.poll_fill(context)).await?;
    }
    Ok(())
}

fn asked(head: &Request<'_>) -> Asked {
    let options = || head.header_values("connection").flat_map(|value| value.split(',')).map(str::trim);
    let says = |option: &str| options().any(|said| said.eq_ignore_ascii_case(option));
    // RFC 9112 §9.3.
    let keep_alive = if head.is_http_1_1() { !says("close") } else { says("keep-alive") && !says("close") };
    Asked { is_head: head.method() == "HEAD", is_http_1_1: head.is_http_1_1(), keep_alive }
}

/// The request, still without its content. `None` when its target is no URI.
fn request_of(head: &Request<'_>) -> Option<http::Request<Body>> {
    let mut request = http::Request::new(Body::empty());
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).ok()?;
    *request.uri_mut() = head.target().parse::<Uri>().ok()?;
    *request.version_mut() = if head.is_http_1_1() { Version::HTTP_11 } else { Version::HTTP_10 };
    let headers = request.headers_mut();
    for (name, value) in head.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(request)
}

/// What the request's content and the response have in common, in one task: nobody waits for the lock.
struct Shared<S>(Mutex<State<S>>);

struct State<S> {
    conn: Option<Conn<S>>,
    upload: Upload,
    /// The handler has the content, and nobody else reads meanwhile.
    is_lent: bool,
}

impl<S> Shared<S> {
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of a request, as far as it has still to come.
#[derive(Debug)]
struct Upload {
    rest: Rest,
    /// The client waits to be told to go on (RFC 9110 §10.1.1).
    is_awaiting: bool,
    /// There is no telling any more where it ends.
    is_broken: bool,
}

#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Chunks),
}

impl Upload {
    fn of(head: &Request<'_>, has_more: bool) -> Self {
        let rest = match head.framing() {
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Chunks::new()),
        };
        let expects = head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        // Whoever has begun to send waits for nothing, and HTTP/1.0 has no such answer.
        Self { rest, is_awaiting: expects && head.is_http_1_1() && !has_more, is_broken: false }
    }

    fn nothing() -> Self {
        Self { rest: Rest::Length(0), is_awaiting: false, is_broken: false }
    }

    fn is_over(&self) -> bool {
        match &self.rest {
            Rest::Length(left) => *left == 0,
            Rest::Chunked(chunks) => chunks.is_over(),
        }
    }

    /// Takes what there is of it; empty when more has to be read.
    fn take<S: AsyncRead + AsyncWrite + Unpin>(&mut self, conn: &mut Conn<S>) -> io::Result<Bytes> {
        while !conn.input().is_empty() && !self.is_over() {
            let input = conn.input();
            let (used, content) = match &mut self.rest {
                Rest::Length(left) => {
                    let count = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= count as u64;
                    (count, 0..count)
                }
                Rest::Chunked(chunks) => {
                    let Ok(found) = chunks.find(input) else {
                        self.is_broken = true;
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "the chunks of the body are malformed"));
                    };
                    (found.used, found.content)
                }
            };
            let content = Bytes::copy_from_slice(&input[content]);
            conn.use_input(used);
            if !content.is_empty() {
                return Ok(content);
            }
        }
        Ok(Bytes::new())
    }

    /// What is still to come: so much at the least, and if it is known at the most.
    fn left(&self) -> SizeHint {
        match &self.rest {
            Rest::Length(left) => SizeHint::with_exact(*left),
            Rest::Chunked(_) => SizeHint::new(),
        }
    }

    /// Whether the connection can go on behind content that nobody wants: it will come, and is not too much.
    fn is_discardable(&self) -> bool {
        !self.is_awaiting && !self.is_broken && self.left().lower() <= MOST_DISCARDED
    }

    /// Reads what is still to come, which nobody wants; whether it was no more than `most` bytes, and came in time.
    async fn discard<S: AsyncRead + AsyncWrite + Unpin>(&mut self, conn: &mut Conn<S>, most: u64) -> bool {
        let mut discarded = 0;
        let discarding = async {
            while !self.is_over() && discarded <= most {
                let content = self.take(conn)?;
                discarded += content.len() as u64;
                if content.is_empty() && !self.is_over() && poll_fn(|context| conn.poll_fill(context)).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok::<_, io::Error>(())
        };
        let is_read = timeout(LONGEST_END, discarding).await;
        matches!(is_read, Ok(Ok(()))) && self.is_over()
    }
}

/// The content of a request, for its handler.
struct Content<S>(Arc<Shared<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::body::Body for Content<S> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut state = self.0.state();
        let State { conn, upload, is_lent } = &mut *state;
        let Some(conn) = conn else { return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))) };
        loop {
            let data = upload.take(conn)?;
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if upload.is_over() {
                *is_lent = false;
                return Poll::Ready(None);
            }
            if std::mem::take(&mut upload.is_awaiting) {
                conn.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
                // What the socket does not take now, the response takes along.
                let _ = conn.poll_flush(context)?;
            }
            if ready!(conn.poll_fill(context))? == 0 {
                upload.is_broken = true;
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.state().upload.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.state().upload.left()
    }
}

impl<S> Drop for Content<S> {
    fn drop(&mut self) {
        self.0.state().is_lent = false;
    }
}

/// A response on its way.
struct Answer<'e, S, F, L> {
    shared: &'e Shared<S>,
    asked: Asked,
    is_last: L,
    stage: Stage<'e, F>,
    /// The socket takes nothing; when that has lasted for too long.
    stalled: Option<Pin<Box<Sleep>>>,
}

enum Stage<'e, F> {
    Awaited(Pin<&'e mut F>),
    Sent { content: Body, transfer: Transfer, keep: bool },
    Complete { keep: bool },
}

impl<S, F, E, L> Answer<'_, S, F, L>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Result<Response<Body>, E>>,
    L: Fn() -> bool + Unpin,
{
    /// Sends the response; gives whether the connection may be kept.
    async fn run(mut self) -> io::Result<bool> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            // What is there leaves in one write: a head with its content, and parts that come at once.
            let mut made = false;
            for _ in 0..MOST_PARTS {
                if !self.poll_next(context)? {
                    break;
                }
                made = true;
            }
            let mut state = self.shared.state();
            let State { conn: Some(conn), upload, is_lent } = &mut *state else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let before = conn.output_bytes();
            let is_flushed = conn.poll_flush(context)?.is_ready();
            let wrote = conn.output_bytes() < before;
            if let Stage::Complete { keep } = self.stage
                && is_flushed
            {
                return Poll::Ready(Ok(keep));
            }
            if is_flushed || wrote {
                self.stalled = None;
            } else {
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(LONGEST_STALL)));
                if stalled.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            // A client that goes away is noticed as it is read from: while its request comes, by whoever reads that.
            let mut read = false;
            if !*is_lent && upload.is_over() && !conn.is_at_end() && conn.input().len() < MOST_AHEAD {
                read = conn.poll_fill(context)?.is_ready();
            }
            // One that has only ended its side gets what there is to be had, and is not waited for without end.
            let lasts = matches!(self.stage, Stage::Sent { transfer: Transfer::Chunked | Transfer::UntilEnd, .. });
            if lasts && conn.is_at_end() && !made && is_flushed {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            if !(made || wrote || read) {
                return Poll::Pending;
            }
        }
    }

    /// Takes the next of what is to be written, if there is room; whether anything has changed.
    fn poll_next(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        match &mut self.stage {
            Stage::Awaited(response) => {
                let Poll::Ready(response) = response.as_mut().poll(context) else { return Ok(false) };
                let response = response.map_err(|_| io::Error::other("the handler has failed"))?;
                self.begin(response);
                Ok(true)
            }
            Stage::Sent { content, transfer, keep } => {
                if self.shared.state().conn.as_ref().is_some_and(|conn| conn.output_bytes() >= MOST_WRITTEN) {
                    return Ok(false);
                }
                let next = match Pin::new(content).poll_frame(context) {
                    Poll::Ready(next) => next,
                    Poll::Pending => return Ok(false),
                };
                let mut state = self.shared.state();
                let Some(conn) = &mut state.conn else { return Err(io::ErrorKind::BrokenPipe.into()) };
                let wrong = || io::Error::other("the content of a response is not as long as was said");
                match next {
                    Some(Ok(frame)) => {
                        // Trailers are for nobody here.
                        let data = frame.into_data().unwrap_or_default();
                        transfer.frame(data, |bytes| conn.push(bytes)).ok_or_else(wrong)?;
                    }
                    Some(Err(error)) => return Err(io::Error::other(error)),
                    None => {
                        conn.push(Bytes::from_static(transfer.end().ok_or_else(wrong)?));
                        // The content may be the request's own, which takes the lock as it is dropped.
                        drop(state);
                        self.stage = Stage::Complete { keep: *keep };
                    }
                }
                Ok(true)
            }
            Stage::Complete { .. } => Ok(false),
        }
    }

    fn begin(&mut self, response: Response<Body>) {
        let (head, content) = response.into_parts();
        // Before the lock: the content may be the request's own, which takes it.
        let length = content.size_hint().exact();
        let mut state = self.shared.state();
        let State { conn: Some(conn), upload, .. } = &mut *state else { return };
        let mut asked = self.asked;
        asked.keep_alive &= !(self.is_last)() && (upload.is_over() || upload.is_discardable());
        let mut written = Vec::with_capacity(256);
        let (transfer, keep) = write_head(head.status, &head.headers, length, asked, SystemTime::now(), &mut written);
        // From here on it would come too late.
        upload.is_awaiting = false;
        conn.push(written.into());
        self.stage = match transfer {
            Some(transfer) if transfer != Transfer::Length(0) => Stage::Sent { content, transfer, keep },
            _ => Stage::Complete { keep },
        };
    }
}

/// Bytes of content that nobody wants and that are read all the same, so that the connection can be kept: 64 KiB.
const MOST_DISCARDED: u64 = 64 << 10;

/// How long that, or the peer's end, is waited for.
const LONGEST_END: Duration = Duration::from_secs(5);

/// Bytes that are read of a peer that is to end: 1 MiB.
const MOST_UNREAD: usize = 1 << 20;

/// How long a client may take nothing of what is written.
const LONGEST_STALL: Duration = Duration::from_secs(60);

/// Bytes that are read ahead of the next request: as many as a shard holds of a head.
const MOST_AHEAD: usize = 16 << 10;

/// Parts of a response that are taken before they are written.
const MOST_PARTS: usize = 32;

/// Bytes that wait to be written before a response is asked for more: 64 KiB.
const MOST_WRITTEN: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use axum::body::to_bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::oneshot;

    use super::super::stream::Stream;
    use super::*;

    /// A connection with what was read of it, and its other end.
    fn pair(input: &str) -> (Conn<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(1 << 20);
        (Conn::new(input.into(), Stream::new(near, None)), far)
    }

    /// Answers with the content of the request.
    async fn echo(request: http::Request<Body>) -> Result<Response<Body>, Infallible> {
        Ok(match to_bytes(request.into_body(), usize::MAX).await {
            Ok(content) => Response::new(Body::from(content)),
            Err(_) => Response::builder().status(400).body(Body::empty()).expect("a response"),
        })
    }

    async fn answered(conn: Conn<DuplexStream>) -> io::Result<Option<Conn<DuplexStream>>> {
        let (exchange, request) = Exchange::begin(conn).expect("a head");
        exchange.answer(echo(request.expect("a request")), || false).await
    }

    /// What has come, without the time of it.
    async fn heard(far: &mut DuplexStream) -> String {
        let mut buffer = vec![0; 1 << 20];
        let count = far.read(&mut buffer).await.expect("something");
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let lines = text.split("\r\n").filter(|line| !line.starts_with("date: "));
        lines.collect::<Vec<_>>().join("\r\n")
    }

    /// Content that comes in parts, and then ends or does not.
    struct Parts(VecDeque<&'static str>, bool, Option<oneshot::Sender<()>>);

    impl hyper::body::Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop_front() {
                Some(part) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(part.as_bytes()))))),
                None if self.1 => Poll::Ready(None),
                None => {
                    if let Some(sender) = self.2.take() {
                        let _ = sender.send(());
                    }
                    Poll::Pending
                }
            }
        }
    }

    #[tokio::test]
    async fn content_is_read_to_its_end_and_what_is_behind_it_is_left() {
        let plain = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\nT: x\r\n\r\n";
        let next = "GET /next HTTP/1.1\r\n\r\n";
        for request in [plain, chunked] {
            let head = request.find("\r\n\r\n").expect("a head") + 4;
            let bytes = format!("{request}{next}");
            for cut in head..=bytes.len() {
                let (read, later) = bytes.split_at(cut);
                let (conn, mut far) = pair(read);
                far.write_all(later.as_bytes()).await.expect("written");
                let mut conn = answered(conn).await.expect("no error").expect("it is kept");
                assert_eq!(heard(&mut far).await, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "{cut}");
                while conn.input().len() < next.len() {
                    poll_fn(|context| conn.poll_fill(context)).await.expect("the rest");
                }
                assert_eq!(conn.input(), next.as_bytes(), "{cut}");
            }
        }
    }

    #[tokio::test]
    async fn who_waits_to_be_told_to_go_on_is_told_when_its_content_is_wanted() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        let (conn, mut far) = pair(head);
        let (kept, ()) = tokio::join!(answered(conn), async {
            assert_eq!(heard(&mut far).await, "HTTP/1.1 100 Continue\r\n\r\n");
            far.write_all(b"hello").await.expect("written");
        });
        assert!(kept.expect("no error").is_some());
        assert!(heard(&mut far).await.starts_with("HTTP/1.1 200 OK\r\n"));
        // Whoever has sent it is not told.
        let (conn, mut far) = pair(&format!("{head}hello"));
        assert!(answered(conn).await.expect("no error").is_some());
        assert!(heard(&mut far).await.starts_with("HTTP/1.1 200 OK\r\n"));
        // Nor one whose content nobody wants; and then it is not known what comes next.
        let (conn, mut far) = pair(head);
        let (exchange, request) = Exchange::begin(conn).expect("a request");
        drop(request);
        let response = async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        far.shutdown().await.expect("ended");
        assert!(exchange.answer(response, || false).await.expect("no error").is_none());
        assert_eq!(heard(&mut far).await, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }

    #[tokio::test]
    async fn a_client_that_has_ended_its_side_waits_for_its_answer() {
        for framed in [true, false] {
            let (conn, mut far) = pair("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let (exchange, _) = Exchange::begin(conn).expect("a request");
            let (sender, answer) = oneshot::channel::<()>();
            let response = async {
                answer.await.expect("told");
                let parts = Parts(VecDeque::from(["he", "llo"]), true, None);
                Ok::<_, Infallible>(Response::new(if framed { Body::from("hello") } else { Body::new(parts) }))
            };
            far.shutdown().await.expect("ended");
            let (kept, ()) = tokio::join!(exchange.answer(response, || false), async {
                // It has seen the end by now, or will.
                tokio::task::yield_now().await;
                sender.send(()).expect("somebody waits");
            });
            assert!(kept.expect("no error").is_none());
            let heard = heard(&mut far).await;
            assert!(
                heard.ends_with(if framed { "\r\n\r\nhello" } else { "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n" }),
                "{heard}"
            );
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_away_from_a_response_without_end_is_noticed() {
        for is_gone in [false, true] {
            let (conn, mut far) = pair("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let (exchange, _) = Exchange::begin(conn).expect("a request");
            let (sender, waits) = oneshot::channel();
            let parts = Parts(VecDeque::from(["tick"]), false, Some(sender));
            let response = async { Ok::<_, Infallible>(Response::new(Body::new(parts))) };
            let (outcome, _far) = tokio::join!(exchange.answer(response, || false), async {
                waits.await.expect("it waits");
                if is_gone {
                    drop(far);
                    return None;
                }
                far.shutdown().await.expect("ended");
                Some(far)
            });
            assert!(outcome.is_err());
        }
    }

    #[tokio::test]
    async fn a_target_that_is_no_uri_is_no_request() {
        let (conn, _far) = pair("GET /<x> HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
        let (_, request) = Exchange::begin(conn).expect("a head");
        assert!(request.is_none());
    }

    #[tokio::test]
    async fn a_response_without_length_to_http_1_0_lasts_until_the_end() {
        let (conn, mut far) = pair("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let (exchange, _) = Exchange::begin(conn).expect("a request");
        let parts = Parts(VecDeque::from(["he", "llo"]), true, None);
        let response = async { Ok::<_, Infallible>(Response::new(Body::new(parts))) };
        assert!(exchange.answer(response, || false).await.expect("no error").is_none());
        assert_eq!(heard(&mut far).await, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello");
        assert_eq!(far.read(&mut [0]).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn a_response_that_ends_too_early_ends_the_connection() {
        /// Says that there is more than there is.
        struct Short(Parts);
        impl hyper::body::Body for Short {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                Pin::new(&mut self.0).poll_frame(context)
            }

            fn size_hint(&self) -> SizeHint {
                SizeHint::with_exact(10)
            }
        }
        let (conn, _far) = pair("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (exchange, _) = Exchange::begin(conn).expect("a request");
        let parts = Short(Parts(VecDeque::from(["hello"]), true, None));
        let response = async { Ok::<_, Infallible>(Response::new(Body::new(parts))) };
        assert!(exchange.answer(response, || false).await.is_err());
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_bounded() {
        let (conn, mut far) = pair("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        far.write_all(&vec![b'x'; 200_000]).await.expect("written");
        let (exchange, _) = Exchange::begin(conn).expect("a request");
        let response = async {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        };
        let conn = exchange.answer(response, || false).await.expect("no error").expect("it is kept");
        assert!(conn.input().len() <= 2 * MOST_AHEAD, "{}", conn.input().len());
    }
}
