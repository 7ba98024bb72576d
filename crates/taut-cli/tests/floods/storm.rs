//! Clients who come and go: each connects, upgrades, is greeted, subscribes, hears that it is subscribed, and leaves.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use taut_proto::handshake::{ClientRequest, HeadLimits, HeadScan};
use taut_proto::{CloseCode, Connection, Event, Input, Outbox, Role, Scratch, Settings, Time};

use crate::crowd::ignore_interruption;
use crate::figures::Durations;
use crate::process::processor_time;

/// What is to be done.
#[derive(Clone, Copy)]
pub(crate) struct Storm {
    pub(crate) address: SocketAddr,
    /// Clients per second, started by the clock and not when others have ended; `None`: as fast as can be.
    pub(crate) rate: Option<u32>,
    pub(crate) clients: usize,
    /// Clients under way at a time: what this process has descriptors for.
    pub(crate) at_once: usize,
}

/// What has come of it.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) served: usize,
    /// Those who were not, by what they got instead.
    pub(crate) refused: BTreeMap<String, usize>,
    pub(crate) elapsed: Duration,
    /// From when a client should have begun to its answer to the subscription, so that a late start counts, too.
    pub(crate) durations: Durations,
    /// How late the latest start was.
    pub(crate) latest: Duration,
    pub(crate) most_at_once: usize,
    /// Processor time of the thread that plays the clients.
    pub(crate) spent: Duration,
}

impl Storm {
    pub(crate) fn rage(self) -> Outcome {
        let spent = processor_time(THREAD);
        let mut poll = Poll::new().expect("a poll");
        let mut events = Events::with_capacity(1024);
        let mut visitors: Vec<Option<PresenceMember>> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        let mut stage = Stage::new(self.address);
        let mut outcome = Outcome::default();
        let (mut started, mut under_way) = (0, 0);
        let start = Instant::now();
        while started < self.clients || under_way > 0 {
            let mut now = Instant::now();
            // So many at a time, that those who wait for an answer have their turn as well.
            for _ in 0..BURST {
                let due = self.rate.map_or(now, |rate| start + Duration::from_secs(1) * started as u32 / rate);
                if started == self.clients || due > now || under_way == self.at_once {
                    break;
                }
                outcome.latest = outcome.latest.max(now - due);
                let place = free.pop().unwrap_or_else(|| {
                    visitors.push(None);
                    visitors.len() - 1
                });
                visitors[place] = Some(PresenceMember::come(&mut stage, poll.registry(), place, started, due));
                started += 1;
                under_way += 1;
                outcome.most_at_once = outcome.most_at_once.max(under_way);
                now = Instant::now();
            }
            let wait = match self.rate {
                _ if started == self.clients || under_way == self.at_once => PATIENCE,
                Some(rate) => (start + Duration::from_secs(1) * started as u32 / rate).saturating_duration_since(now),
                None => Duration::ZERO,
            };
            poll.poll(&mut events, Some(wait)).or_else(ignore_interruption).expect("polled");
            assert!(wait < PATIENCE || !events.is_empty(), "{under_way} clients wait and nothing comes: {outcome}");
            for event in &events {
                let place = event.token().0;
                let Some(visitor) = &mut visitors[place] else { continue };
                let Some(end) = visitor.go_on(&mut stage, &mut outcome) else { continue };
                match end {
                    End::Served => outcome.served += 1,
                    End::Refused(why) => *outcome.refused.entry(why).or_default() += 1,
                }
                visitors[place] = None;
                free.push(place);
                under_way -= 1;
            }
        }
        outcome.elapsed = start.elapsed();
        outcome.spent = processor_time(THREAD).saturating_sub(spent);
        outcome
    }
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.served).expect("not so many")) / self.elapsed.as_secs_f64()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "  {} served in {:.2} s: {:.0} per second; at most {} at once, the latest start {:.2} ms late",
            self.served,
            self.elapsed.as_secs_f64(),
            self.rate(),
            self.most_at_once,
            self.latest.as_secs_f64() * 1e3,
        )?;
        for (why, count) in &self.refused {
            writeln!(formatter, "  {count} got: {why}")?;
        }
        write!(formatter, "  due to subscribed: {}", self.durations)
    }
}

/// What all clients share.
struct Stage {
    address: SocketAddr,
    request: ClientRequest,
    head: Vec<u8>,
    settings: Arc<Settings>,
    scratch: Scratch,
    outbox: Outbox,
}

impl Stage {
    fn new(address: SocketAddr) -> Self {
        let target = "/app/key-one?protocol=7&client=js&version=8.6.0&flash=false";
        let request = ClientRequest::new(&address.to_string(), target).expect("a request");
        let mut head = Vec::new();
        request.write(NONCE, &mut head);
        let scratch = Scratch::new(|bytes| bytes.fill(0x5a));
        Self { address, request, head, settings: Arc::new(Settings::client()), scratch, outbox: Outbox::new() }
    }
}

/// One client.
struct PresenceMember {
    stream: TcpStream,
    number: usize,
    due: Instant,
    stage: Progress,
    /// Of the answer to the handshake, as far as it has come.
    head: Vec<u8>,
    connection: Option<Connection>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Connecting,
    Upgrading,
    ToBeGreeted,
    Subscribing,
    Closing,
}

enum End {
    Served,
    Refused(String),
}

impl PresenceMember {
    fn come(stage: &mut Stage, registry: &Registry, place: usize, number: usize, due: Instant) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_nonblocking(true).expect("nonblocking");
        // One address has 28,000 ports at the most, and those of the last minute may not be free yet.
        let source = SOURCE.fetch_add(1, Ordering::Relaxed) % SOURCES;
        let source = Ipv4Addr::new(127, 77, (source / 250) as u8, (source % 250 + 1) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("a port");
        match socket.connect(&stage.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(IN_PROGRESS) || error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("no connection: {error}"),
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE).expect("watched");
        let mut visitor = Self { stream, number, due, stage: Progress::Connecting, head: Vec::new(), connection: None };
        visitor.upgrade(stage);
        visitor
    }

    /// By loopback the connection may be there at once.
    fn upgrade(&mut self, stage: &Stage) {
        match self.stream.write(&stage.head) {
            Ok(count) => {
                assert_eq!(count, stage.head.len(), "a fresh socket takes a head");
                self.stage = Progress::Upgrading;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            // It is heard by the next read.
            Err(_) => self.stage = Progress::Upgrading,
        }
    }

    fn go_on(&mut self, stage: &mut Stage, outcome: &mut Outcome) -> Option<End> {
        if self.stage == Progress::Connecting {
            self.upgrade(stage);
        }
        let mut buffer = [0; 2048];
        loop {
            match self.stream.read(&mut buffer) {
                // After our close frame, or after the server's, which has been heard.
                Ok(0) if self.stage == Progress::Closing => return Some(End::Served),
                Ok(0) => return Some(End::Refused(format!("the end, {}", self.place()))),
                Ok(count) => {
                    if let Some(end) = self.hear(&mut buffer[..count], stage, outcome) {
                        return Some(end);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return None,
                Err(error) => return Some(End::Refused(format!("{}, {}", error.kind(), self.place()))),
            }
        }
    }

    fn hear(&mut self, bytes: &mut [u8], stage: &mut Stage, outcome: &mut Outcome) -> Option<End> {
        if self.connection.is_some() {
            return self.receive(bytes, stage, outcome);
        }
        self.head.extend_from_slice(bytes);
        let end = match HeadScan::new().find(&self.head, &HeadLimits::default()) {
            Ok(None) => return None,
            Ok(Some(end)) => end,
            Err(refusal) => return Some(End::Refused(refusal.to_string())),
        };
        let mut head = std::mem::take(&mut self.head);
        let (head, rest) = head.split_at_mut(end);
        if let Err(rejection) = stage.request.validate(head, NONCE, &HeadLimits::default()) {
            return Some(End::Refused(rejection.to_string()));
        }
        self.connection = Some(Connection::new(Role::Client, Arc::clone(&stage.settings), Time::ZERO, 0));
        self.stage = Progress::ToBeGreeted;
        self.receive(rest, stage, outcome)
    }

    fn receive(&mut self, bytes: &mut [u8], stage: &mut Stage, outcome: &mut Outcome) -> Option<End> {
        let mut input = Input::new(bytes);
        let mut connection = self.connection.take()?;
        let mut end = None;
        while let Some(event) = connection
            .receive(&mut input, Time::ZERO, &mut stage.scratch, &mut stage.outbox)
            .expect("the server keeps to the protocol")
        {
            match event {
                Event::Message(message) => {
                    let text = message.as_text().expect("text");
                    match self.stage {
                        Progress::ToBeGreeted if text.starts_with(r#"{"event":"pusher:connection_established""#) => {
                            let data = json!({ "channel": format!("visit-{}", self.number), "auth": "" });
                            let subscribe = json!({ "event": "pusher:subscribe", "data": data }).to_string();
                            let sent = connection.send(&*subscribe, &mut stage.scratch, &mut stage.outbox);
                            sent.expect("open");
                            self.stage = Progress::Subscribing;
                        }
                        Progress::Subscribing
                            if text.starts_with(r#"{"event":"pusher_internal:subscription_succeeded""#) =>
                        {
                            outcome.durations.push(self.due.elapsed());
                            self.stage = Progress::Closing;
                            end = self.leave(&mut connection, stage);
                        }
                        // Said before a close, whose code is what counts.
                        _ if text.starts_with(r#"{"event":"pusher:error""#) => {}
                        _ => end = Some(End::Refused(text.to_owned())),
                    }
                }
                Event::Close(_) if self.stage == Progress::Closing => {}
                Event::Close(close) => {
                    end = Some(End::Refused(format!("{} {}", close.code().as_u16(), close.reason())));
                }
                Event::Ping(_) | Event::Pong(..) | Event::Part(_) => {}
            }
        }
        self.connection = Some(connection);
        let bytes = stage.outbox.to_vec();
        stage.outbox.consume(bytes.len());
        if !bytes.is_empty() && end.is_none() {
            // A few hundred bytes; who ends meanwhile is heard by the next read.
            let _ = self.stream.write(&bytes);
        }
        end
    }

    /// A third each leave by a close frame, by their end, and by a reset.
    fn leave(&mut self, connection: &mut Connection, stage: &mut Stage) -> Option<End> {
        match self.number % 3 {
            0 => {
                connection.close(CloseCode::NORMAL, Time::ZERO, &mut stage.scratch, &mut stage.outbox);
                return None;
            }
            1 => {}
            _ => {
                let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
            }
        }
        Some(End::Served)
    }

    fn place(&self) -> &'static str {
        match self.stage {
            Progress::Connecting => "before it was connected",
            Progress::Upgrading => "in the handshake",
            Progress::ToBeGreeted => "before the greeting",
            Progress::Subscribing => "before the answer to the subscription",
            Progress::Closing => "in the close",
        }
    }
}

const NONCE: [u8; 16] = [7; 16];

/// Where the processor time of this thread stands.
const THREAD: &str = "/proc/thread-self/stat";

/// Clients started before others have their turn.
const BURST: usize = 32;

/// How long nothing may come, though clients wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// The number of the last source address.
static SOURCE: AtomicU32 = AtomicU32::new(0);

/// Addresses that clients come from, one after the other.
const SOURCES: u32 = 1000;

/// EINPROGRESS on Linux, for which there is a name in unstable Rust only.
const IN_PROGRESS: i32 = 115;
