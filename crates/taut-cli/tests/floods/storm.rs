//! Clients who come and go: each connects, upgrades, is greeted, subscribes, hears that it is subscribed, and leaves.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use taut_proto::handshake::ClientRequest;
use taut_proto::testing::{Client, Seen};
use taut_proto::{CloseCode, Time};

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
        let mut visitors: Vec<Option<Visitor>> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        let target = "/app/key-one?protocol=7&client=js&version=8.6.0&flash=false";
        let request = ClientRequest::new(&self.address.to_string(), target).expect("a request");
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
                visitors[place] = Some(Visitor::come(self.address, &request, poll.registry(), place, started, due));
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
                let Some(end) = visitor.go_on(&mut outcome) else { continue };
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

/// One client.
struct Visitor {
    stream: TcpStream,
    number: usize,
    due: Instant,
    stage: Progress,
    client: Client,
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

impl Visitor {
    fn come(
        address: SocketAddr,
        request: &ClientRequest,
        registry: &Registry,
        place: usize,
        number: usize,
        due: Instant,
    ) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_nonblocking(true).expect("nonblocking");
        // One address has 28,000 ports at the most, and those of the last minute may not be free yet.
        let source = SOURCE.fetch_add(1, Ordering::Relaxed) % SOURCES;
        let source = Ipv4Addr::new(127, 77, (source / 250) as u8, (source % 250 + 1) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("a port");
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(IN_PROGRESS) || error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("no connection: {error}"),
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE).expect("watched");
        let client = Client::new(request.clone());
        let mut visitor = Self { stream, number, due, stage: Progress::Connecting, client };
        visitor.upgrade();
        visitor
    }

    /// By loopback the connection may be there at once.
    fn upgrade(&mut self) {
        let request = self.client.request();
        match self.stream.write(&request) {
            Ok(count) => {
                assert_eq!(count, request.len(), "a fresh socket takes a head");
                self.stage = Progress::Upgrading;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            // It is heard by the next read.
            Err(_) => self.stage = Progress::Upgrading,
        }
    }

    fn go_on(&mut self, outcome: &mut Outcome) -> Option<End> {
        if self.stage == Progress::Connecting {
            self.upgrade();
        }
        let mut buffer = [0; 2048];
        loop {
            match self.stream.read(&mut buffer) {
                // After our close frame, or after the server's, which has been heard.
                Ok(0) if self.stage == Progress::Closing => return Some(End::Served),
                Ok(0) => return Some(End::Refused(format!("the end, {}", self.place()))),
                Ok(count) => {
                    if let Some(end) = self.hear(&buffer[..count], outcome) {
                        return Some(end);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return None,
                Err(error) => return Some(End::Refused(format!("{}, {}", error.kind(), self.place()))),
            }
        }
    }

    fn hear(&mut self, bytes: &[u8], outcome: &mut Outcome) -> Option<End> {
        if let Err(rejection) = self.client.receive(bytes, Time::ZERO) {
            return Some(End::Refused(rejection.to_string()));
        }
        if self.stage == Progress::Upgrading && self.client.is_open() {
            self.stage = Progress::ToBeGreeted;
        }
        let mut end = None;
        for seen in std::mem::take(&mut self.client.end.events) {
            match seen {
                Seen::Message(message) => {
                    let text = message.as_text().expect("text");
                    match self.stage {
                        Progress::ToBeGreeted if text.starts_with(r#"{"event":"pusher:connection_established""#) => {
                            let data = json!({ "channel": format!("visit-{}", self.number), "auth": "" });
                            let subscribe = json!({ "event": "pusher:subscribe", "data": data }).to_string();
                            assert!(self.client.end.send(&*subscribe), "it is open");
                            self.stage = Progress::Subscribing;
                        }
                        Progress::Subscribing
                            if text.starts_with(r#"{"event":"pusher_internal:subscription_succeeded""#) =>
                        {
                            outcome.durations.push(self.due.elapsed());
                            self.stage = Progress::Closing;
                            end = self.leave();
                        }
                        // Said before a close, whose code is what counts.
                        _ if text.starts_with(r#"{"event":"pusher:error""#) => {}
                        _ => end = Some(End::Refused(text.to_owned())),
                    }
                }
                Seen::Close(_) if self.stage == Progress::Closing => {}
                Seen::Close(close) => {
                    end = Some(End::Refused(format!("{} {}", close.code().as_u16(), close.reason())));
                }
                Seen::Violation(violation) => panic!("the server broke the protocol: {violation}"),
                Seen::Ping(_) | Seen::Pong(_) | Seen::Part(..) => {}
            }
        }
        if end.is_none() {
            // A few hundred bytes; who ends meanwhile is heard by the next read.
            let _ = self.stream.write(&self.client.end.write(usize::MAX));
        }
        end
    }

    /// A third each leave by a close frame, by their end, and by a reset.
    fn leave(&mut self) -> Option<End> {
        match self.number % 3 {
            0 => {
                self.client.end.close(CloseCode::NORMAL, Time::ZERO);
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
