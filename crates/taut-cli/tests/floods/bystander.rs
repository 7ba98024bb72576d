//! Those who have nothing to do with a flood, and whether they notice it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use taut_proto::handshake::Rejection;

use crate::figures::Durations;
use crate::support::{Client, Http, event};

/// Publishes to a subscriber of its own, again and again, and sends newcomers who connect and subscribe.
pub(crate) struct Bystander {
    is_over: Arc<AtomicBool>,
    publishing: JoinHandle<Durations>,
    coming: Option<JoinHandle<Durations>>,
}

/// What became of them.
pub(crate) struct Served {
    /// From before a publish to its arrival: each arrived, once and in its order.
    pub(crate) publishes: Durations,
    /// From before the connect to the answer to the subscription: each was let in.
    pub(crate) newcomers: Durations,
}

impl Bystander {
    pub(crate) fn watch(address: SocketAddr) -> Self {
        Self::watch_with(address, |address| Client::member(address).0)
    }

    /// The same with newcomers who come again when the server says that it has no room.
    pub(crate) fn watch_persistent(address: SocketAddr) -> Self {
        Self::watch_with(address, |address| {
            loop {
                match Client::try_member(address) {
                    Ok(client) => return client,
                    Err(Rejection::Status { status: 503, .. }) => thread::sleep(EVERY * 10),
                    Err(error) => panic!("{error}"),
                }
            }
        })
    }

    fn watch_with(address: SocketAddr, connect: fn(SocketAddr) -> Client) -> Self {
        let mut bystander = Self::watch_alone(address);
        let over = Arc::clone(&bystander.is_over);
        bystander.coming = Some(thread::spawn(move || {
            let mut durations = Durations::default();
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                let mut newcomer = connect(address);
                newcomer.subscribed("newcomers");
                durations.push(start.elapsed());
                newcomer.vanish();
                thread::sleep(EVERY * 5);
            }
            durations
        }));
        bystander
    }

    /// The same without newcomers.
    pub(crate) fn watch_alone(address: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        // Both are there before it begins.
        let mut subscriber = Client::member(address).0;
        subscriber.subscribed(CHANNEL);
        let mut http = Http::connect(address);
        http.say(CHANNEL, "0");
        assert_eq!(subscriber.message(), event(CHANNEL, "0"));
        let over = Arc::clone(&is_over);
        let publishing = thread::spawn(move || {
            let mut durations = Durations::default();
            while !over.load(Ordering::Relaxed) {
                let number = (durations.len() + 1).to_string();
                let start = Instant::now();
                http.say(CHANNEL, &number);
                assert_eq!(subscriber.message(), event(CHANNEL, &number));
                durations.push(start.elapsed());
                thread::sleep(EVERY);
            }
            subscriber.expect_nothing_before_a_pong();
            durations
        });
        Self { is_over, publishing, coming: None }
    }

    /// Ends it.
    pub(crate) fn ask(self) -> Served {
        self.is_over.store(true, Ordering::Relaxed);
        let publishes = self.publishing.join().expect("the bystander was served");
        let newcomers = self.coming.map(|coming| coming.join().expect("newcomers were served")).unwrap_or_default();
        Served { publishes, newcomers }
    }
}

impl Served {
    /// That none of it took longer than that.
    pub(crate) fn check(&self, publish: Duration, newcomer: Duration) {
        let (slowest, latest) = (self.publishes.longest(), self.newcomers.longest());
        assert!(slowest < publish, "a bystander's publish took {slowest:?}\n{self}");
        assert!(latest < newcomer, "a newcomer waited for {latest:?}\n{self}");
    }
}

impl fmt::Display for Served {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "  bystander, publish to arrival: {}", self.publishes)?;
        if self.newcomers.len() > 0 {
            write!(formatter, "\n  newcomers, connect to subscribed: {}", self.newcomers)?;
        }
        Ok(())
    }
}

const CHANNEL: &str = "bystander";

/// Pause between two publishes.
const EVERY: Duration = Duration::from_millis(10);
