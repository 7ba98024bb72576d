//! Sends a request to a FastCGI server and reads the answer.
//!
//! Each request has its own connection. A kept connection holds a worker of php-fpm while it is idle, so a few of them
//! starve the pool; and php-fpm may close it at any time, so nobody knows whether the next request was accepted.

use std::fmt;
use std::io;
#[cfg(unix)]
use std::io::Write as _;
#[cfg(unix)]
use std::os::unix::net::UnixStream as StdUnixStream;
#[cfg(unix)]
use std::path::Path;
use std::time::Duration;

#[cfg(unix)]
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::select;
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::head::{Head, HeadError};
use super::parameters::{Parameters, ParametersTooLarge};
use super::records::{End, Reader, RecordError, Rejection, Stderr, Writer};

/// Sends a request and reads the whole answer before the deadline.
///
/// # Cancel safety
/// If the future is dropped, the connection closes. The script may run all the same: php-fpm notices only when the
/// script writes.
///
/// # Errors
/// When there is no whole answer. [`Failure::is_untouched`] tells whether the request can be sent again.
pub(crate) async fn request(
    address: &Address,
    request: &Request<'_>,
    deadline: Instant,
    limits: &Limits,
) -> Result<Answer, Failure> {
    let bytes = request.encode().map_err(Cause::Parameters)?;
    let exchange = Exchange { bytes, written: 0, reader: Reader::new(limits.answer) };
    if deadline <= Instant::now() {
        return Err(Cause::Expired.into());
    }
    match address {
        #[cfg(unix)]
        Address::Unix(path) => {
            let stream = connect_unix(path).map_err(Cause::Connect)?;
            let exchange = exchange.begin(&stream);
            let stream = UnixStream::from_std(stream).map_err(|error| exchange.broken(error))?;
            exchange.run(stream, deadline).await
        }
        #[cfg(not(unix))]
        Address::Unix(_) => Err(Cause::Connect(io::ErrorKind::Unsupported.into()).into()),
        Address::Tcp { host, port } => {
            let stream = connect(TcpStream::connect((&**host, *port)), deadline, limits).await?;
            // All is written at once; nothing is to wait for the acknowledgment of what went before.
            stream.set_nodelay(true).map_err(Cause::Unsent)?;
            exchange.run(stream, deadline).await
        }
    }
}

/// A request for a script.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) parameters: Parameters<'a>,
    pub(crate) body: &'a [u8],
}

impl Request<'_> {
    fn encode(&self) -> Result<Vec<u8>, ParametersTooLarge> {
        let mut writer = Writer::begin(false);
        for (name, value) in self.parameters.pairs(self.body.len())? {
            writer.param(name.as_bytes(), &value).map_err(|_| ParametersTooLarge)?;
        }
        Ok(writer.finish(self.body))
    }
}

/// How long a connection may take, and how much an answer.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    /// Bytes of an answer, with its head.
    pub(crate) answer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), answer: 1 << 20 }
    }
}

/// What a script answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// Warnings, for the log. A script whose answer is a 500 often says here why.
    pub(crate) stderr: Stderr,
}

/// There is no whole answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// What the script said before, for the log.
    pub(crate) stderr: Stderr,
}

impl Failure {
    /// Whether the server certainly did not accept the request, so that sending it again cannot make it happen twice.
    pub(crate) fn is_untouched(&self) -> bool {
        match self.cause {
            Cause::Parameters(_)
            | Cause::Connect(_)
            | Cause::ConnectTimeout
            | Cause::Expired
            | Cause::Unsent(_)
            | Cause::Rejected(_) => true,
            Cause::Broken(_) | Cause::Deadline | Cause::Record(_) | Cause::Head(_) => false,
        }
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self { cause, stderr: Stderr::default() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(formatter)
    }
}

impl std::error::Error for Failure {}

/// Why there is no whole answer.
#[derive(Debug)]
pub(crate) enum Cause {
    /// It cannot be sent at all.
    Parameters(ParametersTooLarge),
    Connect(io::Error),
    ConnectTimeout,
    /// The deadline passed before a byte was written.
    Expired,
    /// The connection broke before a byte was written.
    Unsent(io::Error),
    Rejected(Rejection),
    /// The connection broke before the end of the answer: a worker was killed, or php-fpm was reloaded.
    Broken(io::Error),
    Deadline,
    /// The answer is not FastCGI, or too large.
    Record(RecordError),
    Head(HeadError),
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameters(error) => error.fmt(formatter),
            // Linux says so for a Unix socket; a full TCP backlog ends in a timeout.
            Self::Connect(error) if error.kind() == io::ErrorKind::WouldBlock => {
                formatter.write_str("no connection: the server's backlog is full")
            }
            Self::Connect(error) => write!(formatter, "no connection: {error}"),
            Self::ConnectTimeout => formatter.write_str("no connection: the server does not accept it in time"),
            Self::Expired => formatter.write_str("the deadline passed before the request was sent"),
            Self::Unsent(error) => write!(formatter, "the connection broke before the request was sent: {error}"),
            Self::Rejected(rejection) => write!(formatter, "the server rejected the request: {rejection}"),
            Self::Broken(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                formatter.write_str("the connection closed before the end of the answer")
            }
            Self::Broken(error) => write!(formatter, "the connection broke before the end of the answer: {error}"),
            Self::Deadline => formatter.write_str("the deadline passed before the end of the answer"),
            Self::Record(error) => error.fmt(formatter),
            Self::Head(error) => error.fmt(formatter),
        }
    }
}

/// Connects within the time for that, and before the deadline.
async fn connect<S>(
    connecting: impl Future<Output = io::Result<S>>,
    deadline: Instant,
    limits: &Limits,
) -> Result<S, Cause> {
    let in_time = timeout_at(deadline.min(Instant::now() + limits.connect), connecting).await;
    in_time.map_err(|_| Cause::ConnectTimeout)?.map_err(Cause::Connect)
}

/// Connects to a Unix socket. That never waits: it succeeds at once, or the backlog is full. So the runtime need not be
/// asked when the connection is there, which takes a turn of its loop.
#[cfg(unix)]
fn connect_unix(path: &Path) -> io::Result<StdUnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // By a call of its own: macOS has no type of socket that says so.
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// One request on its connection.
#[derive(Debug)]
struct Exchange {
    /// The whole request.
    bytes: Vec<u8>,
    written: usize,
    reader: Reader,
}

impl Exchange {
    /// Writes what goes at once. A new Unix socket takes a whole request of usual size.
    #[cfg(unix)]
    fn begin(mut self, mut stream: &StdUnixStream) -> Self {
        // After an error nobody reads the rest, but an answer may have come.
        self.written = stream.write(&self.bytes).unwrap_or(0);
        self
    }

    /// Closes the connection as soon as the answer has ended: after its answer php-fpm reads on until the client closes.
    /// Only then does it run what follows `fastcgi_finish_request()`, and take the next request.
    async fn run(mut self, stream: impl AsyncRead + AsyncWrite, deadline: Instant) -> Result<Answer, Failure> {
        let in_time = timeout_at(deadline, self.converse(stream)).await;
        let late = if self.written == 0 { Cause::Expired } else { Cause::Deadline };
        let ended = in_time.unwrap_or(Err(late));
        let (mut body, stderr) = self.reader.into_output();
        let parsed = match ended {
            Ok(End::Complete) => Head::parse(&body).map_err(Cause::Head),
            Ok(End::Rejected(rejection)) => Err(Cause::Rejected(rejection)),
            Err(cause) => Err(cause),
        };
        match parsed {
            Ok((head, length)) => {
                body.drain(..length);
                Ok(Answer { head, body, stderr })
            }
            Err(cause) => Err(Failure { cause, stderr }),
        }
    }

    /// Writes and reads at the same time: a script may answer before it has read its body, and if both sides only
    /// write, neither can go on.
    async fn converse(&mut self, stream: impl AsyncRead + AsyncWrite) -> Result<End, Cause> {
        let (mut source, mut sink) = tokio::io::split(stream);
        let mut buffer = Vec::with_capacity(READ_AT_ONCE);
        let mut is_writing = self.written < self.bytes.len();
        loop {
            select! {
                // A small request is written whole before the first read.
                biased;
                written = sink.write(&self.bytes[self.written..]), if is_writing => {
                    // After an error nobody reads the rest, but an answer may have come.
                    let count = written.unwrap_or(0);
                    self.written += count;
                    is_writing = count > 0 && self.written < self.bytes.len();
                }
                read = source.read_buf(&mut buffer) => {
                    match read {
                        Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                        Ok(_) => {
                            if let Some(end) = self.reader.push(&buffer).map_err(Cause::Record)? {
                                return Ok(end);
                            }
                        }
                        Err(error) => return Err(self.broken(error)),
                    }
                    buffer.clear();
                }
            }
        }
    }

    /// No more can be read.
    fn broken(&self, error: io::Error) -> Cause {
        if self.written == 0 { Cause::Unsent(error) } else { Cause::Broken(error) }
    }
}

/// Bytes.
const READ_AT_ONCE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::super::records::tests::{end, record};
    use super::super::testing::{Directory, later, post};
    use super::*;
    use std::os::unix::net::UnixListener as StdUnixListener;
    use tokio::io::{duplex, join};
    use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket};

    const STDOUT: u8 = 6;
    const STDERR: u8 = 7;

    /// A FastCGI server of one request, at a Unix socket.
    struct Server {
        directory: Directory,
        listener: UnixListener,
    }

    impl Server {
        fn new() -> Self {
            let directory = Directory::new();
            let listener = UnixListener::bind(directory.path().join("socket")).expect("a listener");
            Self { directory, listener }
        }

        fn address(&self) -> Address {
            unix(&self.directory)
        }

        async fn accept(&self) -> UnixStream {
            self.listener.accept().await.expect("a connection").0
        }

        /// Reads the whole request, and answers with these bytes.
        async fn answer(&self, bytes: &[u8]) -> UnixStream {
            let mut stream = self.accept().await;
            read_request(&mut stream).await;
            stream.write_all(bytes).await.expect("a client");
            stream
        }
    }

    fn unix(directory: &Directory) -> Address {
        Address::Unix(directory.path().join("socket"))
    }

    /// Reads until the empty STDIN record.
    async fn read_request(stream: &mut (impl AsyncRead + Unpin)) {
        let mut bytes = Vec::new();
        while !bytes.ends_with(&[1, 5, 0, 1, 0, 0, 0, 0]) {
            let read = stream.read_buf(&mut bytes).await.expect("a client");
            assert_ne!(read, 0, "the client is gone");
        }
    }

    async fn send(address: &Address, deadline: Instant) -> Result<Answer, Failure> {
        let headers: &[(&str, &[u8])] = &[("Cookie", b"hunter2")];
        request(address, &post("/srv/app.php", headers, b"hunter2"), deadline, &Limits::default()).await
    }

    /// Sends a request to a server that answers with these bytes and closes the connection.
    async fn answered(bytes: &[u8]) -> Result<Answer, Failure> {
        let server = Server::new();
        let address = server.address();
        tokio::join!(send(&address, later()), async { drop(server.answer(bytes).await) }).0
    }

    /// Sends a request over this stream.
    async fn run(stream: impl AsyncRead + AsyncWrite) -> Result<Answer, Failure> {
        let exchange = Exchange { bytes: vec![0; 10], written: 0, reader: Reader::new(100) };
        exchange.run(stream, later()).await
    }

    fn answer(body: &[u8]) -> Vec<u8> {
        [record(STDOUT, 1, &[b"Content-type: text/plain\r\n\r\n", body].concat(), 3), end(0)].concat()
    }

    #[tokio::test]
    async fn an_answer_has_status_headers_body_and_warnings() {
        let bytes = [
            record(STDERR, 1, b"a warning", 7),
            record(STDOUT, 1, b"Status: 404 Not Found\r\nX-A: 1\r", 0),
            record(STDOUT, 1, b"\n\r\nbody", 1),
            end(0),
        ];
        let answer = answered(&bytes.concat()).await.expect("an answer");
        assert_eq!(
            (answer.head.status, answer.head.header("x-a"), &*answer.body),
            (404, Some(&b"1"[..]), &b"body"[..])
        );
        assert_eq!(answer.stderr.text(), "a warning");
    }

    #[tokio::test]
    async fn the_connection_closes_when_the_answer_has_ended() {
        let server = Server::new();
        let address = server.address();
        let (sent, end_of_stream) = tokio::join!(send(&address, later()), async {
            let mut stream = server.answer(&answer(b"a")).await;
            // As php-fpm does: it keeps its side open, and reads on.
            stream.read(&mut [0; 8]).await.expect("a client")
        });
        assert_eq!((&*sent.expect("an answer").body, end_of_stream), (&b"a"[..], 0));
    }

    #[tokio::test]
    async fn without_a_server_a_request_is_untouched() {
        let directory = Directory::new();
        let failure = send(&unix(&directory), later()).await.expect_err("no socket");
        assert!(
            matches!(&failure.cause, Cause::Connect(error) if error.kind() == io::ErrorKind::NotFound),
            "{failure:?}"
        );
        assert!(failure.is_untouched() && failure.to_string().starts_with("no connection: No such file"), "{failure}");

        drop(StdUnixListener::bind(directory.path().join("socket")).expect("a listener"));
        let failure = send(&unix(&directory), later()).await.expect_err("nobody listens");
        assert!(failure.is_untouched() && failure.to_string().contains("refused"), "{failure}");

        let listener = TcpListener::bind("[::1]:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let address = Address::Tcp { host: "::1".to_owned(), port };
        let failure = send(&address, later()).await.expect_err("nobody listens");
        assert!(
            matches!(&failure.cause, Cause::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused),
            "{failure:?}"
        );
        assert!(failure.is_untouched(), "{failure}");
    }

    #[tokio::test]
    async fn a_full_backlog_of_a_unix_socket_is_told_at_once() {
        let directory = Directory::new();
        let path = directory.path().join("socket");
        let socket = UnixSocket::new_stream().expect("a socket");
        socket.bind(&path).expect("a path");
        let _listener = socket.listen(0).expect("a listener");
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        let failure = send(&unix(&directory), later()).await.expect_err("no room");
        assert_eq!(failure.to_string(), "no connection: the server's backlog is full");
        assert!(failure.is_untouched());
    }

    #[tokio::test]
    async fn a_full_backlog_of_a_tcp_port_is_not_waited_for() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let listener = socket.listen(0).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let patience = Duration::from_millis(100);
        let mut waiting = Vec::new();
        while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        let limits = Limits { connect: patience, ..Limits::default() };
        let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
        let failure = request(&address, &post("/srv/app.php", &[], b""), later(), &limits).await.expect_err("no room");
        assert!(failure.is_untouched() && matches!(failure.cause, Cause::ConnectTimeout), "{failure:?}");
        // A deadline before that counts, too.
        let failure = send(&address, Instant::now() + patience).await.expect_err("no room");
        assert!(failure.is_untouched() && matches!(failure.cause, Cause::ConnectTimeout), "{failure:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_its_time_and_at_most_until_the_deadline() {
        for (until_deadline, expected) in [(10_000, 1000), (500, 500)] {
            let start = Instant::now();
            let deadline = start + Duration::from_millis(until_deadline);
            let cause =
                connect::<()>(std::future::pending(), deadline, &Limits::default()).await.expect_err("no answer");
            assert!(matches!(cause, Cause::ConnectTimeout), "{cause:?}");
            let waited = start.elapsed().as_millis();
            assert!((expected..expected + 10).contains(&waited), "{waited} ms");
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_after_the_deadline() {
        let server = Server::new();
        let failure = send(&server.address(), Instant::now()).await.expect_err("too late");
        assert!(failure.is_untouched() && matches!(failure.cause, Cause::Expired), "{failure:?}");
        let next = async { server.listener.accept().await.map(drop) };
        let waiting = tokio::time::timeout(Duration::ZERO, next).await;
        assert!(waiting.is_err(), "there was a connection");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_holds_for_a_dribbled_answer() {
        let server = Server::new();
        let address = server.address();
        let start = Instant::now();
        let sent = send(&address, start + Duration::from_millis(10_500));
        let (sent, dribbled) = tokio::join!(sent, async {
            let mut stream = server.answer(b"").await;
            let mut dribbled = 0;
            for byte in answer(b"a") {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                dribbled += 1;
            }
            dribbled
        });
        let failure = sent.expect_err("too late");
        assert!(!failure.is_untouched() && matches!(failure.cause, Cause::Deadline), "{failure:?}");
        assert_eq!(dribbled, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_holds_for_a_server_that_never_answers() {
        let server = Server::new();
        let address = server.address();
        let start = Instant::now();
        let sent = send(&address, start + Duration::from_secs(10));
        let (sent, _stream) = tokio::join!(sent, server.answer(b""));
        let failure = sent.expect_err("too late");
        assert!(!failure.is_untouched() && start.elapsed() >= Duration::from_secs(10), "{failure:?}");
        assert_eq!(failure.to_string(), "the deadline passed before the end of the answer");
    }

    #[tokio::test]
    async fn the_deadline_holds_for_endless_warnings() {
        let server = Server::new();
        let address = server.address();
        let sent = send(&address, Instant::now() + Duration::from_millis(200));
        let (sent, ()) = tokio::join!(sent, async {
            let mut stream = server.answer(b"").await;
            let warning = record(STDERR, 1, &[b'x'; 10_000], 0);
            while stream.write_all(&warning).await.is_ok() {}
        });
        let failure = sent.expect_err("too late");
        assert!(matches!(failure.cause, Cause::Deadline) && failure.stderr.dropped() > 0, "{failure}");
        assert_eq!(failure.stderr.text().len(), 64 * 1024);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_may_have_had_effects() {
        let failure = answered(b"").await.expect_err("no answer");
        assert!(!failure.is_untouched() && matches!(failure.cause, Cause::Broken(_)), "{failure:?}");

        let half = [record(STDERR, 1, b"a warning", 0), record(STDOUT, 1, b"A: b\n\nhalf", 0)].concat();
        let failure = answered(&half).await.expect_err("half an answer");
        assert!(!failure.is_untouched() && failure.stderr.text() == "a warning", "{failure:?}");
        assert_eq!(failure.to_string(), "the connection closed before the end of the answer");
    }

    #[tokio::test]
    async fn a_rejected_request_is_untouched() {
        let failure = answered(&end(2)).await.expect_err("a rejection");
        assert!(
            failure.is_untouched() && matches!(failure.cause, Cause::Rejected(Rejection::Overloaded)),
            "{failure:?}"
        );
        assert_eq!(failure.to_string(), "the server rejected the request: it is overloaded");
    }

    #[tokio::test]
    async fn an_answer_that_is_none_may_have_had_effects() {
        let large = record(STDOUT, 1, &vec![b'x'; 60_000], 0).repeat(18);
        for (bytes, text) in [
            (
                b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
                "the server does not speak FastCGI 1.0: a record has version 72",
            ),
            (large, "the answer is larger than 1048576 bytes"),
            (end(0), "the answer has no valid CGI head: no blank line ends the headers"),
            (
                [record(STDOUT, 1, b"hunter2\n\n", 0), end(0)].concat(),
                "the answer has no valid CGI head: a line has no colon",
            ),
        ] {
            let server = Server::new();
            let address = server.address();
            let (sent, ()) = tokio::join!(send(&address, later()), async {
                let mut stream = server.accept().await;
                read_request(&mut stream).await;
                // The client may be gone before all is written.
                let _ = stream.write_all(&bytes).await;
            });
            let failure = sent.expect_err(text);
            assert_eq!((failure.is_untouched(), &*failure.to_string()), (false, text));
        }
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_sent_is_untouched() {
        let address = unix(&Directory::new());
        let cookie = vec![b'x'; 65_536];
        let headers: &[(&str, &[u8])] = &[("Cookie", &cookie)];
        let large = post("/srv/app.php", headers, b"");
        let failure = request(&address, &large, later(), &Limits::default()).await.expect_err("too large");
        assert!(failure.is_untouched() && matches!(failure.cause, Cause::Parameters(_)), "{failure:?}");
        assert_eq!(failure.to_string(), "the FastCGI parameters are larger than 65536 bytes");
    }

    #[tokio::test]
    async fn a_large_body_and_an_early_answer_do_not_wait_for_each_other() {
        let server = Server::new();
        let address = server.address();
        let (body, early) = (vec![b'x'; 4 << 20], vec![b'y'; 900_000]);
        let request = post("/srv/app.php", &[], &body);
        let limits = Limits::default();
        let sent = super::request(&address, &request, later(), &limits);
        let (sent, ()) = tokio::join!(sent, async {
            let mut stream = server.accept().await;
            let head = record(STDOUT, 1, b"A: b\n\n", 0);
            stream.write_all(&head).await.expect("a client");
            for part in early.chunks(60_000) {
                stream.write_all(&record(STDOUT, 1, part, 0)).await.expect("a client");
            }
            read_request(&mut stream).await;
            stream.write_all(&end(0)).await.expect("a client");
        });
        assert!(sent.expect("an answer").body == early);
    }

    #[tokio::test]
    async fn an_answer_counts_although_the_body_was_not_taken() {
        let server = Server::new();
        let address = server.address();
        let body = vec![b'x'; 4 << 20];
        let request = post("/srv/app.php", &[], &body);
        let limits = Limits::default();
        let sent = super::request(&address, &request, later(), &limits);
        let (sent, _stream) = tokio::join!(sent, async {
            let mut stream = server.accept().await;
            stream.write_all(&answer(b"early")).await.expect("a client");
            stream
        });
        assert_eq!(sent.expect("an answer").body, b"early");

        let (sink, _) = duplex(100);
        let bytes = answer(b"early");
        let answer = run(join(&*bytes, sink)).await.expect("an answer, although nobody reads");
        assert_eq!(answer.body, b"early");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_untouched_until_its_first_byte_is_written() {
        let (stream, _) = duplex(100);
        let failure = run(stream).await.expect_err("a closed connection");
        assert!(failure.is_untouched() && matches!(failure.cause, Cause::Unsent(_)), "{failure:?}");
        assert!(failure.to_string().starts_with("the connection broke before the request was sent"), "{failure}");

        let (mut stream, _other) = duplex(1);
        stream.write_u8(0).await.expect("room for a byte");
        let failure = run(stream).await.expect_err("nothing goes out");
        assert!(failure.is_untouched() && matches!(failure.cause, Cause::Expired), "{failure:?}");

        let (stream, _other) = duplex(1);
        let failure = run(stream).await.expect_err("one byte goes out");
        assert!(!failure.is_untouched() && matches!(failure.cause, Cause::Deadline), "{failure:?}");

        let (stream, mut other) = duplex(1);
        let (sent, _) = tokio::join!(run(stream), async move { other.read_u8().await.expect("a byte") });
        let failure = sent.expect_err("one byte goes out");
        assert!(!failure.is_untouched() && matches!(failure.cause, Cause::Broken(_)), "{failure:?}");
    }

    #[tokio::test]
    async fn errors_repeat_nothing_of_the_request() {
        let broken = [record(STDOUT, 1, b"hunter2", 0), end(0)].concat();
        for bytes in [&b"hunter2!"[..], &broken, &end(3)] {
            let failure = answered(bytes).await.expect_err("not an answer");
            let text = failure.to_string();
            assert!(!text.contains("hunter2") && !text.contains("app.php") && !text.contains('\n'), "{text}");
        }
    }
}
