//! Real shards on real sockets of the loopback address.

#[path = "support/tls.rs"]
mod tls_settings;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use taut_proto::handshake::{ClientRequest, Request};
use taut_proto::testing::BlockingClient;
use taut_proto::{Close, CloseCode, Message};
use taut_shard::{
    Closed, Connections, Drain, Drainer, Handler, Handover, HandshakeId, Intake, Mailbox, Refused, Responded, Session,
    Settings, Shard, Verdict, listen,
};

#[test]
fn an_echo_over_tcp() {
    let _turn = turn();
    let server = Server::start(1, &Settings::default());
    let mut client = server.connect();
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let message = Message::from(vec![7; size]);
        client.send(message.clone());
        assert_eq!(client.message(), message, "{size} bytes");
    }
    assert_eq!(close(client), CloseCode::NORMAL);
    server.stop();
}

#[test]
fn an_echo_over_tls() {
    let _turn = turn();
    let (server, keys) = Server::start_with_tls();
    let mut client = open(keys.stream(server.address));
    for size in [0, 1, 16_384, 1_000_000] {
        let message = Message::from("x".repeat(size));
        client.send(message.clone());
        assert_eq!(client.message(), message, "{size} bytes");
    }
    assert_eq!(close(client), CloseCode::NORMAL);
    server.stop();
}

#[test]
fn several_shards_share_a_port() {
    let _turn = turn();
    let server = Server::start(2, &Settings::default());
    let mut clients: Vec<_> = (0..64).map(|_| server.connect()).collect();
    let mut by_shard = [0; 2];
    for client in &mut clients {
        client.send("which");
        let reply = client.message();
        by_shard[reply.as_text().unwrap().parse::<usize>().unwrap()] += 1;
    }
    assert!(by_shard.iter().all(|count| *count > 0), "{by_shard:?}");
    // Each shard counts its own.
    let counted: Vec<usize> = (0..2).map(|shard| server.ask(shard)).collect();
    assert_eq!(counted, by_shard);
    for client in clients {
        assert_eq!(close(client), CloseCode::NORMAL);
    }
    server.stop();
}

#[test]
fn a_port_that_is_taken_is_not_shared_silently() {
    let _turn = turn();
    let taken = listen(loopback(0), 2).unwrap();
    let address = taken[0].local_addr().unwrap();
    assert!(taken.iter().all(|listener| listener.local_addr().unwrap() == address));
    assert_eq!(listen(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(listen(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn a_plain_request_leaves_with_its_bytes_and_is_answered_elsewhere() {
    let _turn = turn();
    let server = Server::start(1, &Settings::default());
    let mut stream = server.stream();
    let request = b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    stream.write_all(request).unwrap();
    let mut handover = server.handovers.recv_timeout(PATIENCE).unwrap();
    assert_eq!(handover.peer, stream.local_addr().unwrap());
    // The body may come with the head or after it.
    handover.stream.set_nonblocking(false).unwrap();
    let mut bytes = handover.bytes.clone();
    while bytes.len() < request.len() {
        let mut more = [0; 100];
        let count = handover.stream.read(&mut more).unwrap();
        bytes.extend_from_slice(&more[..count]);
    }
    assert_eq!(bytes, request);
    handover.stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    drop(handover);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HTTP/1.1 204 No Content\r\n\r\n");
    server.stop();
}

#[test]
fn a_plain_request_leaves_with_its_live_tls() {
    let _turn = turn();
    let (server, keys) = Server::start_with_tls();
    let mut stream = keys.stream(server.address);
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let Handover { stream: mut tcp, tls, bytes, .. } = server.handovers.recv_timeout(PATIENCE).unwrap();
    assert_eq!(bytes, b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut tls = tls.unwrap();
    tcp.set_nonblocking(false).unwrap();
    rustls::Stream::new(&mut *tls, &mut tcp).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    // It goes both ways.
    stream.write_all(b"more").unwrap();
    let mut more = [0; 4];
    rustls::Stream::new(&mut *tls, &mut tcp).read_exact(&mut more).unwrap();
    assert_eq!(&more, b"more");
    tls.send_close_notify();
    tls.complete_io(&mut tcp).unwrap();
    drop(tcp);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HTTP/1.1 204 No Content\r\n\r\n");
    server.stop();
}

#[test]
fn a_request_is_answered_here_and_the_next_leaves_with_its_live_tls_and_what_is_behind_it() {
    let _turn = turn();
    let (server, keys) = Server::start_with_tls();
    let mut stream = keys.stream(server.address);
    let request =
        |content: &str| format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{content}", content.len());
    stream.write_all(request("hello").as_bytes()).unwrap();
    let mut answer = [0; ANSWER.len() + 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *[ANSWER, b"hello"].concat());
    let rest = request("elsewhere") + &request("behind it");
    stream.write_all(rest.as_bytes()).unwrap();
    let Handover { stream: mut tcp, tls, bytes, .. } = server.handovers.recv_timeout(PATIENCE).unwrap();
    assert_eq!(bytes, rest.as_bytes());
    tcp.set_nonblocking(false).unwrap();
    rustls::Stream::new(&mut *tls.unwrap(), &mut tcp).write_all(b"bye").unwrap();
    stream.read_exact(&mut answer[..3]).unwrap();
    assert_eq!(&answer[..3], b"bye");
    server.stop();
}

#[test]
fn a_connection_comes_back_with_its_live_tls_and_what_was_read_behind_its_request() {
    let _turn = turn();
    let (server, keys) = Server::start_with_tls();
    let mut stream = keys.stream(server.address);
    let page = "GET /page HTTP/1.1\r\nHost: a\r\n\r\n";
    let echo = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    // What is behind the request was read on the shard, is decrypted but not read, or is still to come.
    for behind in 0..4 {
        let (with_it, later) = if behind == 0 { (echo, "") } else { ("", echo) };
        stream.write_all([page, with_it].concat().as_bytes()).unwrap();
        let mut handover = server.handovers.recv_timeout(PATIENCE).unwrap();
        handover.stream.set_nonblocking(false).unwrap();
        let tls = handover.tls.as_mut().unwrap();
        rustls::Stream::new(&mut **tls, &mut handover.stream).write_all(ANSWER).unwrap();
        if behind == 1 {
            stream.write_all(later.as_bytes()).unwrap();
            while tls.process_new_packets().unwrap().plaintext_bytes_to_read() == 0 {
                tls.read_tls(&mut handover.stream).unwrap();
            }
        }
        handover.bytes.drain(..page.len());
        server.shards[0].intake.give_back(handover).unwrap();
        if behind > 1 {
            stream.write_all(later.as_bytes()).unwrap();
        }
        let mut answer = [0; 2 * ANSWER.len() + 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *[ANSWER, ANSWER, b"hello"].concat(), "{behind}");
    }
    // RFC 9110 §7.8: it may still become a WebSocket.
    let mut client = open(stream);
    client.send("hello");
    assert_eq!(client.message(), Message::from("hello"));
    assert_eq!(close(client), CloseCode::NORMAL);
    server.stop();
}

#[test]
fn a_connection_that_comes_back_to_a_shard_that_has_stopped_is_refused() {
    let _turn = turn();
    let server = Server::start(1, &Settings::default());
    let mut stream = server.stream();
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let handover = server.handovers.recv_timeout(PATIENCE).unwrap();
    let intake = server.shards[0].intake.clone();
    server.stop();
    let Refused(handover) = intake.give_back(handover).unwrap_err();
    drop(handover);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_socket_that_another_thread_hands_in_is_served() {
    let _turn = turn();
    let (server, _) = Server::start_with_tls();
    // The shard sleeps, and is woken for it.
    server.ask(0);
    let mut clients: Vec<_> = (0..20).map(|_| open(server.hand_in())).collect();
    for client in &mut clients {
        let message = Message::from(vec![7; 300_000]);
        client.send(message.clone());
        assert_eq!(client.message(), message);
    }
    for client in clients {
        assert_eq!(close(client), CloseCode::NORMAL);
    }
    let intake = server.shards[0].intake.clone();
    server.stop();
    let (ours, mut theirs) = connected();
    let Refused(ours) = intake.adopt(ours, loopback(1)).unwrap_err();
    drop(ours);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_drain_tells_the_clients_refuses_new_ones_and_returns() {
    let _turn = turn();
    let server = Server::start(2, &Settings::default());
    let clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let address = server.address;
    server.drain(Duration::from_millis(50), PATIENCE);
    for mut client in clients {
        assert_eq!(await_close(&mut client), CloseCode::SERVICE_RESTART);
    }
    server.join();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_drain_returns_at_its_deadline_although_a_client_is_deaf() {
    let _turn = turn();
    let server = Server::start(1, &Settings::default());
    let mut client = server.connect();
    let start = Instant::now();
    server.drain(Duration::ZERO, Duration::from_millis(200));
    server.join();
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert_eq!(await_close(&mut client), CloseCode::SERVICE_RESTART);
}

#[test]
fn five_thousand_connections_leave_nothing_behind() {
    let _turn = turn();
    let server = Server::start(1, &Settings::default());
    let descriptors = descriptors();
    let mut resident_after_a_fifth = 0;
    for batch in 0..50_u32 {
        let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(vec![0; n * 100]);
        }
        for (n, client) in clients.into_iter().enumerate() {
            leave(client, n % 3);
        }
        if batch == 9 {
            resident_after_a_fifth = resident();
        }
    }
    // Every question is a turn of the shard's.
    let give_up = Instant::now() + PATIENCE;
    while server.ask(0) > 0 || self::descriptors() > descriptors {
        assert!(Instant::now() < give_up, "{} open, {} descriptors", server.ask(0), self::descriptors());
    }
    assert_eq!(server.closed.load(Ordering::SeqCst), 5000);
    let grown = resident().saturating_sub(resident_after_a_fifth);
    assert!(grown < 4 << 20, "4,000 connections have left {grown} bytes");
    server.stop();
}

/// Shards in threads.
struct Server {
    address: SocketAddr,
    shards: Vec<Thread>,
    handovers: Receiver<Handover>,
    closed: Arc<AtomicUsize>,
}

struct Thread {
    handle: JoinHandle<io::Result<()>>,
    drainer: Drainer,
    mailbox: Mailbox<Sender<usize>>,
    intake: Intake,
}

impl Server {
    fn start(count: usize, settings: &Settings) -> Self {
        let listeners = listen(loopback(0), count).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (sender, handovers) = channel();
        let closed = Arc::<AtomicUsize>::default();
        let start = |(number, listener): (usize, TcpListener)| {
            let handler = Echo { number, handovers: sender.clone(), closed: Arc::clone(&closed) };
            let shard = Shard::new(listener, handler, settings.clone()).unwrap();
            let (drainer, mailbox, intake) = (shard.drainer(), shard.mailbox(), shard.intake());
            Thread { handle: std::thread::spawn(move || shard.run()), drainer, mailbox, intake }
        };
        let shards = listeners.into_iter().enumerate().map(start).collect();
        Self { address, shards, handovers, closed }
    }

    /// One shard that speaks TLS, and what its clients need.
    fn start_with_tls() -> (Self, Keys) {
        let keys = keys();
        let mut settings = Settings::default();
        settings.tls = Some(Arc::clone(&keys.0));
        (Self::start(1, &settings), keys)
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn connect(&self) -> BlockingClient<TcpStream> {
        open(self.stream())
    }

    /// The other end of a socket that the first shard is handed.
    fn hand_in(&self) -> TcpStream {
        let (ours, theirs) = connected();
        self.shards[0].intake.adopt(ours, loopback(1)).unwrap();
        theirs
    }

    /// How many connections a shard has open.
    fn ask(&self, shard: usize) -> usize {
        let (sender, answer) = channel();
        self.shards[shard].mailbox.push(sender, 0).unwrap();
        answer.recv_timeout(PATIENCE).unwrap()
    }

    fn drain(&self, over: Duration, deadline: Duration) {
        for shard in &self.shards {
            shard.drainer.drain(Drain { close: Close::from(CloseCode::SERVICE_RESTART), over, deadline });
        }
    }

    /// A shard that does not return holds up its test, which is then ended from outside.
    fn join(self) {
        for shard in self.shards {
            shard.handle.join().unwrap().unwrap();
        }
    }

    fn stop(self) {
        self.drain(Duration::ZERO, PATIENCE);
        self.join();
    }
}

/// The head of an answer of five bytes.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";

struct Echo {
    number: usize,
    handovers: Sender<Handover>,
    closed: Arc<AtomicUsize>,
}

impl Handler for Echo {
    type User = ();
    /// Asks how many connections are open.
    type Mail = Sender<usize>;

    fn request<'r>(&mut self, request: &'r Request<'r>, _: SocketAddr, _: HandshakeId) -> Verdict<'r, ()> {
        if request.path() == "/echo" {
            return Verdict::Respond { content: request.header("content-length").unwrap().parse().unwrap() };
        }
        if !request.wants_upgrade() {
            return Verdict::HandOver;
        }
        match request.upgrade() {
            Ok(upgrade) => Verdict::Accept(upgrade, ()),
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    fn respond(
        &mut self,
        _: &mut Connections<()>,
        _: &Request<'_>,
        content: &[u8],
        response: &mut Vec<u8>,
    ) -> Responded {
        if content == b"elsewhere" {
            return Responded::HandOver;
        }
        response.extend_from_slice(&[ANSWER, content].concat());
        Responded::Answered
    }

    fn message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        let _ = match message.as_text() {
            Some("which") => session.send(self.number.to_string()),
            _ => session.send(message),
        };
    }

    fn closed(&mut self, _: &mut Connections<()>, _: Closed<()>) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn mail(&mut self, connections: &mut Connections<()>, asker: Sender<usize>) {
        let _ = asker.send(connections.len());
    }

    fn hand_over(&mut self, handover: Handover) {
        let _ = self.handovers.send(handover);
    }
}

fn open<S: Read + Write>(stream: S) -> BlockingClient<S> {
    BlockingClient::open(stream, ClientRequest::new("echo.example", "/").unwrap()).unwrap()
}

/// Closes, and reads to the end; gives the code that came back. The server then has our end too.
fn close<S: Read + Write>(mut client: BlockingClient<S>) -> CloseCode {
    client.close(CloseCode::NORMAL);
    await_close(&mut client)
}

/// Reads to the end; gives the code that came before.
fn await_close<S: Read + Write>(client: &mut BlockingClient<S>) -> CloseCode {
    client.read_to_close().unwrap().expect("a close frame").code()
}

/// One of three ways to go: by the protocol, by the end of the stream, or in the middle of everything.
fn leave(mut client: BlockingClient<TcpStream>, how: usize) {
    match how {
        0 => {
            client.message();
            assert_eq!(close(client), CloseCode::NORMAL);
        }
        1 => {
            client.message();
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            client.read_to_close().unwrap();
        }
        // What is unread makes this a reset.
        _ => drop(client),
    }
}

struct Keys(Arc<ServerConfig>, Arc<ClientConfig>);

impl Keys {
    fn stream(&self, address: SocketAddr) -> rustls::StreamOwned<ClientConnection, TcpStream> {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("echo.example").unwrap();
        rustls::StreamOwned::new(ClientConnection::new(Arc::clone(&self.1), name).unwrap(), tcp)
    }
}

fn keys() -> Keys {
    let (server, client) = tls_settings::settings("echo.example", rustls::DEFAULT_VERSIONS);
    Keys(server, client)
}

/// One test at a time: they count the descriptors of the process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Both ends of a connection past every server.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (listener.accept().unwrap().0, theirs)
}

/// Open descriptors of this process; where they cannot be counted, none.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Bytes of memory of this process; where they cannot be counted, none.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok()).unwrap_or(0) << 10
}

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
