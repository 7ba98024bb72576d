//! The load: subscribers and publishers on one thread.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use measure::Outcome;
use measure::connect::{self, PATIENCE};
use measure::frame::{NORMAL_CLOSE, opcode, push_masked};
use measure::server::Server;
use measure::window::{Reading, Window};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::case::{MOST_ARRIVALS, Publish};
use crate::messages;
use crate::publisher::Publisher;
use crate::subscriber::{Script, Subscriber};

/// Connections to one server.
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    addresses: Vec<SocketAddr>,
    script: Script,
    subscribers: Vec<Subscriber>,
    /// Those that are subscribed.
    subscribed: usize,
    publishers: Vec<Publisher>,
    buffer: Vec<u8>,
    traffic: Traffic,
}

/// What is published, and what has come of it.
struct Traffic {
    channels: usize,
    /// Signed, and sent over and over; the n-th is for the n-th channel, round and round.
    requests: Vec<Vec<u8>>,
    /// Publishes that have begun.
    published: usize,
    /// Deliveries that they will make.
    expected: u64,
    received: u64,
}

impl Crowd {
    /// Nobody yet; there are to be so many channels.
    pub(crate) fn new(addresses: &[SocketAddr], channels: usize) -> Outcome<Self> {
        // No server cares about the port in the host that a client names.
        let address = addresses[0];
        let script = Script {
            request: connect::request(address, messages::PATH),
            subscribe: (0..channels).map(|channel| messages::subscribe(&messages::channel(channel))).collect(),
        };
        let requests = (0..channels.max(FEWEST_REQUESTS).next_multiple_of(channels))
            .map(|number| messages::publish(address, &messages::channel(number % channels), &messages::data(number)))
            .collect::<Outcome<_>>()?;
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            addresses: addresses.to_vec(),
            script,
            subscribers: Vec::new(),
            subscribed: 0,
            publishers: Vec::new(),
            buffer: vec![0; BUFFER_LENGTH],
            traffic: Traffic { channels, requests, published: 0, expected: 0, received: 0 },
        })
    }

    /// All that a case needs, connected and subscribed.
    pub(crate) fn assembled(case: &Publish, addresses: &[SocketAddr]) -> Outcome<Self> {
        let mut crowd = Self::new(addresses, case.channels)?;
        crowd.subscribe(case.connections())?;
        for number in 0..case.publishers {
            let (token, address) = (Token(FIRST_PUBLISHER + number), addresses[number % addresses.len()]);
            crowd.publishers.push(Publisher::open(crowd.poll.registry(), address, token)?);
        }
        Ok(crowd)
    }

    /// Opens connections until so many are subscribed.
    pub(crate) fn subscribe(&mut self, connections: usize) -> Outcome<()> {
        while self.subscribed < connections {
            self.open_more(SETTING_UP, connections)?;
            self.turn()?;
        }
        Ok(())
    }

    fn open_more(&mut self, under_way: usize, most: usize) -> Outcome<()> {
        while self.subscribers.len() < most && self.subscribers.len() - self.subscribed < under_way {
            let number = self.subscribers.len();
            // The subscribers of each channel are spread over all nodes.
            let node = (number / self.traffic.channels + number) % self.addresses.len();
            let address = self.addresses[node];
            let stream = connect::begin(address, number)
                .map_err(|error| format!("cannot connect to {address} (connection {number}): {error}"))?;
            let mut stream = TcpStream::from_std(stream);
            self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            self.subscribers.push(Subscriber::new(stream, number % self.traffic.channels));
        }
        Ok(())
    }

    /// Opens connections for the warm-up and the window and counts those that came to be subscribed in the window.
    pub(crate) fn measure_arrivals(
        &mut self,
        under_way: usize,
        server: &Server,
        cores: [usize; 2],
        [warm_up, window]: [Duration; 2],
    ) -> Outcome<Window> {
        let warm = Instant::now() + warm_up;
        while Instant::now() < warm && self.subscribers.len() < MOST_ARRIVALS / 2 {
            self.open_more(under_way, MOST_ARRIVALS)?;
            self.turn()?;
        }
        let begin = Reading::take(server, cores, self.subscribed as u64)?;
        let end_at = begin.at + window;
        while Instant::now() < end_at && self.subscribers.len() < MOST_ARRIVALS {
            self.open_more(under_way, MOST_ARRIVALS)?;
            self.turn()?;
        }
        let end = Reading::take(server, cores, self.subscribed as u64)?;
        self.subscribe(self.subscribers.len())?;
        Ok(end.since(&begin))
    }

    /// Publishes for the warm-up and the window, counts what is delivered in the window, then waits for all that is
    /// missing and looks whether everybody got everything.
    pub(crate) fn measure(
        &mut self,
        case: &Publish,
        server: &Server,
        cores: [usize; 2],
        [warm_up, window]: [Duration; 2],
    ) -> Outcome<Window> {
        let warm = Instant::now() + warm_up;
        while Instant::now() < warm {
            self.publish_more(case.under_way())?;
            self.turn()?;
        }
        let begin = Reading::take(server, cores, self.traffic.received)?;
        let end_at = begin.at + window;
        while Instant::now() < end_at {
            self.publish_more(case.under_way())?;
            self.turn()?;
        }
        let end = Reading::take(server, cores, self.traffic.received)?;
        self.settle()?;
        Ok(end.since(&begin))
    }

    /// Publishes one event to the first channel and waits until all have it.
    pub(crate) fn publish_once(&mut self) -> Outcome<()> {
        self.publish_more(1)?;
        self.settle()
    }

    /// Lets every publisher that is free publish, unless too much is still being delivered.
    fn publish_more(&mut self, under_way: usize) -> Outcome<()> {
        let traffic = &mut self.traffic;
        let per_channel = (self.subscribers.len() / traffic.channels) as u64;
        let most_expected = traffic.received + (under_way as u64 - 1) * per_channel;
        for publisher in &mut self.publishers {
            if traffic.expected > most_expected {
                break;
            }
            if publisher.is_free() {
                let number = traffic.published % traffic.requests.len();
                traffic.published += 1;
                traffic.expected += per_channel;
                publisher.publish(self.poll.registry(), &traffic.requests, number)?;
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Outcome<()> {
        while self.traffic.received < self.traffic.expected || !self.publishers.iter().all(Publisher::is_free) {
            self.turn()?;
        }
        let Traffic { channels, published, .. } = self.traffic;
        for subscriber in &self.subscribers {
            let whole_rounds = published / channels;
            let due = whole_rounds + usize::from(subscriber.channel < published % channels);
            if subscriber.events != due as u64 {
                let Subscriber { channel, events, .. } = subscriber;
                return Err(format!("a subscriber of channel {channel} got {events} events of {due}").into());
            }
        }
        Ok(())
    }

    /// Waits for events and serves them.
    fn turn(&mut self) -> Outcome<()> {
        if let Err(error) = self.poll.poll(&mut self.events, Some(PATIENCE)) {
            return if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error.into()) };
        }
        if self.events.is_empty() {
            let Traffic { expected, received, .. } = self.traffic;
            let (opened, subscribed) = (self.subscribers.len(), self.subscribed);
            return Err(format!(
                "nothing came for {PATIENCE:?}; {received} of {expected} deliveries and {subscribed} of {opened} \
                 subscriptions are there"
            )
            .into());
        }
        for event in &self.events {
            let token = event.token().0;
            if token >= FIRST_PUBLISHER {
                self.publishers[token - FIRST_PUBLISHER].advance(&self.traffic.requests)?;
                continue;
            }
            let subscriber = &mut self.subscribers[token];
            if event.is_readable() || !subscriber.is_subscribed() {
                let was_subscribed = subscriber.is_subscribed();
                self.traffic.received += subscriber.advance(&self.script, &mut self.buffer)?;
                self.subscribed += usize::from(!was_subscribed && subscriber.is_subscribed());
            }
        }
        if self.traffic.received > self.traffic.expected {
            return Err("more was delivered than was published".into());
        }
        Ok(())
    }

    /// Ends every subscriber by the closing handshake and waits until the server has ended its side, so that its work with
    /// closing lies before the next window.
    pub(crate) fn close(mut self) -> Outcome<()> {
        let mut open = self.subscribers.len();
        let mut goodbye = Vec::new();
        push_masked(&mut goodbye, opcode::CLOSE, &NORMAL_CLOSE, [1, 2, 3, 4]);
        for subscriber in &mut self.subscribers {
            // All that was said was answered, so the socket has room for eight bytes.
            subscriber.stream.write_all(&goodbye)?;
        }
        let mut ended = vec![false; open];
        while open > 0 {
            match self.poll.poll(&mut self.events, Some(PATIENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            if self.events.is_empty() {
                return Err(format!("{open} connections were not ended within {PATIENCE:?} of the close").into());
            }
            for event in &self.events {
                let number = event.token().0;
                if number < FIRST_PUBLISHER && !ended[number] && self.subscribers[number].has_ended(&mut self.buffer)? {
                    ended[number] = true;
                    open -= 1;
                }
            }
        }
        Ok(())
    }
}

/// Tokens from here on are publishers'.
const FIRST_PUBLISHER: usize = 1 << 20;

/// Connections under way where their speed is not what is measured.
const SETTING_UP: usize = 64;

/// Different events, even if there is one channel only.
const FEWEST_REQUESTS: usize = 256;

const BUFFER_LENGTH: usize = 256 * 1024;
