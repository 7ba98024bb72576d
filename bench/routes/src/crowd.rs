//! The load: connections on one thread, each with one message in flight.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use measure::Outcome;
use measure::connect::{self, PATIENCE};
use measure::frame::{Frame, NORMAL_CLOSE, opcode, push_masked};
use measure::server::Server;
use measure::window::{Latency, Reading, Window};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token};

use crate::peers::Protocol;
use crate::text::{fastcgi_request, frame, handshake, http_request, is_fastcgi_answer, is_http_answer, text};

/// Connections to one stack.
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    target: Target,
    clients: Vec<Client>,
    /// Those that have been let in and not closed.
    open: usize,
    /// Messages that were answered.
    answered: u64,
    /// Whether an answer is followed by the next message.
    is_running: bool,
    is_closing: bool,
    latencies: Vec<Duration>,
    buffer: Vec<u8>,
}

/// Where and how the stack is asked.
enum Target {
    FastCgi { socket: PathBuf, script: String },
    Http(SocketAddr),
    WebSocket(SocketAddr),
}

struct Client {
    stream: Option<Box<dyn Stream>>,
    received: Vec<u8>,
    is_open: bool,
    /// What was sent last.
    text: String,
    number: u64,
    /// When it was, until the answer has come.
    sent: Option<Instant>,
}

trait Stream: Read + Write + Source {}

impl<S: Read + Write + Source> Stream for S {}

impl Crowd {
    /// Opens the connections, handshakes included.
    pub(crate) fn connect(protocol: Protocol, server: &Server, connections: usize) -> Outcome<Self> {
        let target = match protocol {
            Protocol::FastCgi => {
                let socket = server.socket.clone().ok_or("it has no Unix socket")?;
                let script = socket.with_file_name("echo.php").to_string_lossy().into_owned();
                Target::FastCgi { socket, script }
            }
            Protocol::Http => Target::Http(server.address()),
            Protocol::WebSocket => Target::WebSocket(server.address()),
        };
        let mut crowd = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            target,
            clients: Vec::with_capacity(connections),
            open: 0,
            answered: 0,
            is_running: false,
            is_closing: false,
            latencies: Vec::new(),
            buffer: vec![0; BUFFER_LENGTH],
        };
        for _ in 0..connections {
            crowd.begin()?;
            while crowd.open + UNDER_WAY < crowd.clients.len() {
                crowd.turn()?;
            }
        }
        while crowd.open < connections {
            crowd.turn()?;
        }
        Ok(crowd)
    }

    fn begin(&mut self) -> Outcome<()> {
        let number = self.clients.len();
        let mut client = Client::new();
        match &self.target {
            Target::FastCgi { .. } => client.is_open = true,
            Target::Http(address) => {
                client.register(TcpStream::from_std(nonblocking(*address, number)?), number, &self.poll)?;
                client.is_open = true;
            }
            Target::WebSocket(address) => {
                client.register(TcpStream::from_std(nonblocking(*address, number)?), number, &self.poll)?;
                client.write(&handshake(*address))?;
            }
        }
        self.open += usize::from(client.is_open);
        self.clients.push(client);
        Ok(())
    }

    /// Sends for the warm-up and the window, counts what is answered in the window, then waits for all that is missing.
    pub(crate) fn measure(
        &mut self,
        server: &Server,
        cores: [usize; 2],
        [warm_up, window]: [Duration; 2],
    ) -> Outcome<Window> {
        self.is_running = true;
        self.send_all()?;
        let warm = Instant::now() + warm_up;
        while Instant::now() < warm {
            self.turn()?;
        }
        self.latencies.clear();
        let begin = Reading::take(server, cores, self.answered)?;
        let end_at = begin.at + window;
        while Instant::now() < end_at {
            self.turn()?;
        }
        let end = Reading::take(server, cores, self.answered)?;
        let latency = Latency::of(std::mem::take(&mut self.latencies));
        self.is_running = false;
        self.settle()?;
        Ok(Window { latency, ..end.since(&begin) })
    }

    /// Sends one message on every connection and waits for the answers.
    pub(crate) fn exchange(&mut self) -> Outcome<()> {
        self.send_all()?;
        self.settle()
    }

    fn send_all(&mut self) -> Outcome<()> {
        for number in 0..self.clients.len() {
            self.clients[number].send(number, &self.target, &self.poll)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Outcome<()> {
        while self.clients.iter().any(|client| client.sent.is_some()) {
            self.turn()?;
        }
        Ok(())
    }

    /// Waits for events and serves them.
    fn turn(&mut self) -> Outcome<()> {
        if let Err(error) = self.poll.poll(&mut self.events, Some(PATIENCE)) {
            return if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error.into()) };
        }
        if self.events.is_empty() {
            let (clients, open) = (self.clients.len(), self.open);
            let waiting = self.clients.iter().filter(|client| client.sent.is_some()).count();
            return Err(format!(
                "nothing came for {PATIENCE:?}; {open} of {clients} connections are open, and {waiting} wait for an answer"
            )
            .into());
        }
        for event in &self.events {
            let number = event.token().0;
            let client = &mut self.clients[number];
            let was_open = client.is_open;
            let answered = client
                .advance(&self.target, self.is_closing, &mut self.buffer)
                .map_err(|error| format!("connection {number}: {error}"))?;
            match (was_open, client.is_open) {
                (false, true) => self.open += 1,
                (true, false) => self.open -= 1,
                _ => {}
            }
            if let Some(latency) = answered {
                self.answered += 1;
                self.latencies.push(latency);
                if self.is_running {
                    client.send(number, &self.target, &self.poll)?;
                }
            }
        }
        Ok(())
    }

    /// Ends every WebSocket by the closing handshake and waits until the server has ended its side, so that most of its work
    /// with closing lies before the next window.
    pub(crate) fn close(mut self) -> Outcome<()> {
        if !matches!(self.target, Target::WebSocket(_)) {
            return Ok(());
        }
        self.is_closing = true;
        let mut goodbye = Vec::new();
        push_masked(&mut goodbye, opcode::CLOSE, &NORMAL_CLOSE, [1, 2, 3, 4]);
        for client in &mut self.clients {
            client.write(&goodbye)?;
        }
        while self.open > 0 {
            self.turn()?;
        }
        Ok(())
    }
}

impl Client {
    fn new() -> Self {
        Self { stream: None, received: Vec::new(), is_open: false, text: String::new(), number: 0, sent: None }
    }

    fn register(&mut self, mut stream: impl Stream + 'static, number: usize, poll: &Poll) -> io::Result<()> {
        poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
        self.stream = Some(Box::new(stream));
        Ok(())
    }

    /// All that was sent before has been read, so the socket has room.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.as_mut().ok_or(ErrorKind::NotConnected)?.write_all(bytes)
    }

    /// Sends the next message.
    fn send(&mut self, connection: usize, target: &Target, poll: &Poll) -> Outcome<()> {
        self.number += 1;
        self.text = text(connection, self.number);
        let mut bytes = Vec::with_capacity(2048);
        self.sent = Some(Instant::now());
        match target {
            Target::FastCgi { socket, script } => {
                self.reconnect(connection, socket, poll)?;
                fastcgi_request(&mut bytes, script, &self.text, self.number);
            }
            Target::Http(_) => http_request(&mut bytes, &self.text, self.number),
            Target::WebSocket(_) => frame(&mut bytes, &self.text, self.number),
        }
        if !matches!(target, Target::WebSocket(_)) {
            self.received.clear();
        }
        self.write(&bytes)?;
        Ok(())
    }

    fn reconnect(&mut self, connection: usize, socket: &Path, poll: &Poll) -> Outcome<()> {
        self.stream = None;
        let stream = UnixStream::connect(socket).map_err(|error| format!("{}: {error}", socket.display()))?;
        self.register(stream, connection, poll)?;
        Ok(())
    }

    /// Reads what has come; gives how long the answer took if that is there now.
    fn advance(&mut self, target: &Target, is_closing: bool, buffer: &mut [u8]) -> Outcome<Option<Duration>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let mut has_ended = false;
        loop {
            match stream.read(buffer) {
                Ok(0) => has_ended = true,
                Ok(length) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    // An end that came along with bytes is not announced again.
                    if is_closing || length == buffer.len() {
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset && is_closing => has_ended = true,
                Err(error) => return Err(error.into()),
            }
            break;
        }
        let is_answered = match target {
            Target::FastCgi { .. } => is_fastcgi_answer(&self.received, &self.text)?,
            Target::Http(_) => is_http_answer(&self.received, &self.text)?,
            Target::WebSocket(_) => self.take_frames(is_closing)?,
        };
        if has_ended && !is_answered && !is_closing && self.sent.is_some() {
            return Err("the server ended the connection instead of an answer".into());
        }
        if has_ended && matches!(target, Target::WebSocket(_)) {
            if !is_closing {
                return Err("the server ended the connection".into());
            }
            self.is_open = false;
            self.stream = None;
        }
        if is_answered {
            if matches!(target, Target::FastCgi { .. }) {
                // A worker of php-fpm waits for that before it takes another request.
                self.stream = None;
            }
            return Ok(self.sent.take().map(|sent| sent.elapsed()));
        }
        Ok(None)
    }

    /// Takes the head of the answer to the handshake, and frames behind it; says whether the echo was among them.
    fn take_frames(&mut self, is_closing: bool) -> Outcome<bool> {
        if !self.is_open {
            let Some(length) = connect::head_length(&self.received) else { return Ok(false) };
            connect::check(&self.received[..length])?;
            self.received.drain(..length);
            self.is_open = true;
        }
        let mut is_answered = false;
        loop {
            let mut rest = self.received.as_slice();
            let frame = match Frame::read(&mut rest) {
                Ok(frame) => frame,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(is_answered),
                Err(error) => return Err(error.into()),
            };
            let taken = self.received.len() - rest.len();
            self.received.drain(..taken);
            match frame.opcode {
                opcode::TEXT if frame.last && frame.payload == self.text.as_bytes() && self.sent.is_some() => {
                    is_answered = true;
                }
                opcode::PING => {
                    let mut pong = Vec::new();
                    push_masked(&mut pong, opcode::PONG, &frame.payload, [1, 2, 3, 4]);
                    self.write(&pong)?;
                }
                opcode::CLOSE if is_closing => {}
                _ => {
                    let Frame { opcode, payload, .. } = frame;
                    let content = String::from_utf8_lossy(&payload).into_owned();
                    return Err(format!("a frame came that is not the echo: opcode {opcode}, {content:?}").into());
                }
            }
        }
    }
}

fn nonblocking(address: SocketAddr, number: usize) -> io::Result<std::net::TcpStream> {
    let stream = connect::open(address, number)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Handshakes at a time.
const UNDER_WAY: usize = 32;

/// No answer is as long.
const BUFFER_LENGTH: usize = 64 * 1024;
