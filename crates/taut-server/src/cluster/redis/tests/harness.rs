//! A Redis and nodes for tests.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::super::{Settings, random_name, start};
use crate::app::{AppConfig, Features, Limits};
use crate::apps::{Admission, App, Apps, Granted, NoPlace};
use crate::cluster::{Broker, Done, Owners, Phase, Question, State};
use crate::events::Event;
use crate::hub::engine::{Request, Standing, Update};
use crate::hub::receipt::Receipt;

/// The app of all tests.
pub(super) const APP: &str = "1";

/// What all keys of the cluster begin with.
pub(super) const PARTITION: &str = "taut{0}";

/// After this nothing comes any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a server is started where it cannot have its ports.
const TRIES: usize = 10;

/// A Redis of this test alone.
pub(super) struct Cluster {
    directory: PathBuf,
    server: Option<Child>,
    lease: Duration,
    url: String,
    /// Of the app of all nodes together; 0: any number.
    most_connections: usize,
}

/// A cluster without nodes. `None`, and loudly, where there is no Redis: `TAUT_TEST_REDIS=required` makes that an error.
pub(super) fn cluster(lease: Duration) -> Option<Cluster> {
    if let Err(error) = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status() {
        let is_required = std::env::var("TAUT_TEST_REDIS").is_ok_and(|value| value == "required");
        assert!(!is_required, "redis-server: {error}");
        eprintln!(
            "\nSKIPPED: there is no redis-server on the PATH ({error}), so nothing of the cluster on Redis is tested\n"
        );
        return None;
    }
    let directory = std::env::temp_dir().join(format!("taut-redis-{}", random_name()));
    std::fs::create_dir(&directory).expect("a directory");
    let url = format!("unix://{}/redis.sock", directory.display());
    let mut cluster = Cluster { directory, server: None, lease, url, most_connections: 0 };
    cluster.start();
    Some(cluster)
}

impl Cluster {
    pub(super) fn start(&mut self) {
        let mut server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", "redis.sock", "--dir", "."])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server starts");
        let mut lines = BufReader::new(server.stdout.take().expect("it is piped")).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains("ready to accept"))), "it starts");
        // It writes little, and must not find its output closed.
        std::thread::spawn(move || lines.for_each(drop));
        self.server = Some(server);
    }

    /// Without a word, and without anything kept.
    pub(super) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().and_then(|()| server.wait()).expect("it was running");
        }
    }

    pub(super) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn signal(&self, signal: &str) {
        let id = self.server.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
    }

    /// The server does nothing any more, and its connections stay.
    pub(super) fn stop_process(&mut self) {
        self.signal("-STOP");
    }

    pub(super) fn continue_process(&mut self) {
        self.signal("-CONT");
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Nodes that join from here on use another Redis.
    pub(super) fn use_url(&mut self, url: String) {
        self.url = url;
    }

    /// Nodes that join from here on let so many connections in.
    pub(super) fn limit_connections(&mut self, most: usize) {
        self.most_connections = most;
    }

    pub(super) fn connection(&self) -> ::redis::Connection {
        ::redis::Client::open(&*self.url).and_then(|client| client.get_connection()).expect("a connection")
    }

    pub(super) fn command(&self, words: &[&str]) {
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]).exec(&mut self.connection()).expect("an answer");
    }

    fn number(&self, words: &[&str]) -> u64 {
        ::redis::cmd(words[0]).arg(&words[1..]).query(&mut self.connection()).expect("a number")
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query(&mut self.connection()).expect("keys");
        keys.sort();
        keys
    }

    /// How often each command was called.
    pub(super) fn calls(&self) -> BTreeMap<String, u64> {
        let text: String = ::redis::cmd("INFO").arg("commandstats").query(&mut self.connection()).expect("text");
        let line = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }

    /// Cuts every connection of every node.
    pub(super) fn kill_connections(&self) {
        self.command(&["CLIENT", "KILL", "SKIPME", "yes"]);
    }

    /// Polls: Redis tells nobody.
    pub(super) fn wait_until(&self, is_so: impl FnMut() -> bool) {
        assert!(eventually(is_so), "it does not come: {:?}", self.calls());
    }

    pub(super) fn wait_until_reaped(&self) {
        let dead = format!("{PARTITION}:dead");
        self.wait_until(|| self.number(&["SCARD", &dead]) == 0);
    }

    pub(super) fn wait_until_told(&self) {
        let happened = format!("{PARTITION}:happened");
        self.wait_until(|| self.number(&["XLEN", &happened]) == 0);
    }

    /// What these nodes have told webhooks, in order, once the user of this name has come somewhere.
    pub(super) fn told(&self, nodes: &[&Node], user_id: &str) -> Vec<Event> {
        self.wait_until_told();
        let mut told = Vec::new();
        for node in nodes {
            while let Ok(seen) = node.seen.lock().expect("not poisoned").try_recv() {
                if let Seen::Happened(event) = seen {
                    told.push(event);
                }
            }
        }
        assert!(told.iter().any(|event| matches!(event, Event::MemberAdded { user_id: it, .. } if **it == *user_id)));
        told
    }

    /// A node that is not waited for.
    pub(super) fn node(&self, name: &str, lease: Duration) -> Node {
        self.node_with_grace(name, lease, Duration::ZERO)
    }

    /// The same, of an app whose users may be away for a while.
    fn node_with_grace(&self, name: &str, lease: Duration, presence_grace: Duration) -> Node {
        let features = Features { presence_grace, ..Features::default() };
        let config = AppConfig { features, ..AppConfig::parse(&format!("{APP}:key:secret")).expect("an app") };
        let limits = Limits { connections: self.most_connections, ..Limits::default() };
        let apps = Arc::new(Apps::new([config], &limits).expect("one app"));
        let (sender, seen) = mpsc::channel();
        let log = tracing::Dispatch::new(Log(Mutex::new(sender.clone())));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            // For as long as the thread lives.
            .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&log)))
            .build()
            .expect("a runtime");
        // Other tests take the processors for as long as they like.
        let response_timeout = lease / 2;
        let settings =
            Settings { url: self.url.clone(), name: name.to_owned(), lease, response_timeout, ..Settings::default() };
        let broker = start(settings, Arc::clone(&apps), Arc::new(Recorder(Mutex::new(sender))), runtime.handle());
        let app = apps.by_id(APP).expect("the app");
        Node { runtime: Some(runtime), broker: Some(broker), app, seen: Mutex::new(seen) }
    }

    /// A node that has joined.
    pub(super) fn join(&self, name: &str) -> Node {
        self.join_with_grace(name, Duration::ZERO)
    }

    /// A node that has joined, of an app whose users may be away for a while.
    pub(super) fn join_with_grace(&self, name: &str, grace: Duration) -> Node {
        let node = self.node_with_grace(name, self.lease, grace);
        node.until(|seen| matches!(seen, Seen::Standing(Standing::Joined)).then_some(()));
        assert_eq!(node.state().phase, Phase::Joined);
        node
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A Redis that listens on TCP, since sentinels and other servers of a Redis Cluster know it by address.
pub(super) struct Server {
    pub(super) port: u16,
    /// On which servers of a Redis Cluster speak with each other, if its arguments say so.
    pub(super) bus: u16,
    process: Child,
}

impl Server {
    pub(super) fn start(arguments: &[&str], directory: &Path) -> Self {
        Self::start_with(|_| arguments.iter().map(|it| (*it).to_owned()).collect(), directory)
    }

    /// The same with arguments that depend on its [`bus`](Self::bus).
    pub(super) fn start_with(arguments: impl Fn(u16) -> Vec<String>, directory: &Path) -> Self {
        for _ in 0..TRIES {
            let (port, bus) = (free_port(), free_port());
            let process = Command::new("redis-server")
                .args(arguments(bus))
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", "."])
                .current_dir(directory)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server starts");
            let mut server = Self { port, bus, process };
            if server.comes_up() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Whether it answers, before it ends: others may have taken its ports meanwhile.
    fn comes_up(&mut self) -> bool {
        let id = format!("process_id:{}", self.process.id());
        let is_up = |server: &Self| server.asked(&["INFO", "server"]).is_some_and(|text| text.contains(&id));
        eventually(|| is_up(self) || self.has_ended()) && is_up(self)
    }

    fn has_ended(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_some())
    }

    /// What it answers, if it does and that is text.
    pub(super) fn asked(&self, words: &[&str]) -> Option<String> {
        self.query(words).ok()
    }

    pub(super) fn query<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> Result<T, ::redis::RedisError> {
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a URL");
        ::redis::cmd(words[0]).arg(&words[1..]).query(&mut client.get_connection()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether something that is polled comes in time.
pub(super) fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// A port of the system's choosing.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port()
}

/// Waits until a receipt has failed and what it stands for is dropped.
pub(super) fn failed(waited: oneshot::Receiver<()>, receipt: Receipt) {
    let end = Instant::now() + PATIENCE;
    // A receipt tells nobody but its token, and this clone keeps that.
    while !receipt.has_failed() {
        assert!(Instant::now() < end, "it has not failed");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(receipt);
    assert!(waited.blocking_recv().is_err(), "the token is dropped");
}

/// A driver with one thread, and what its owners have seen.
pub(super) struct Node {
    runtime: Option<Runtime>,
    broker: Option<Arc<dyn Broker>>,
    app: Arc<App>,
    seen: Mutex<mpsc::Receiver<Seen>>,
}

#[derive(Debug)]
pub(super) enum Seen {
    Update(Update),
    Standing(Standing),
    Terminated(Arc<str>, Duration),
    Happened(Event),
    Granted(Granted),
    /// A line of the log.
    Warned(String),
}

impl Node {
    fn broker(&self) -> &Arc<dyn Broker> {
        self.broker.as_ref().expect("it lives")
    }

    pub(super) fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    pub(super) fn send(&self, request: Request) {
        self.broker().send(&self.app, request);
    }

    pub(super) fn ask(&self, question: Question) {
        self.broker().ask(question);
    }

    pub(super) fn state(&self) -> State {
        self.broker().state()
    }

    /// A client comes, and waits for its place as shards do; `None`: there is none.
    pub(super) fn come(&self) -> Option<Admission> {
        let (mut granted, mut since) = (Granted::All, 0);
        loop {
            match self.app.admit() {
                Ok(admission) => return Some(admission),
                Err(NoPlace::NotGranted) if !granted.refuses(since) => {}
                Err(_) => return None,
            }
            since = self.app.wait(1);
            self.broker().draw(&self.app);
            granted = self.until(|seen| match seen {
                Seen::Granted(granted) => Some(*granted),
                Seen::Standing(_) => Some(Granted::All),
                _ => None,
            });
            self.app.stop_waiting(1);
        }
    }

    /// Waits for something, and forgets what comes before it.
    pub(super) fn until<T>(&self, mut wanted: impl FnMut(&Seen) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let seen = self.seen.lock().expect("not poisoned");
        loop {
            let seen = seen.recv_timeout(end.saturating_duration_since(Instant::now()));
            if let Some(found) = wanted(&seen.expect("it comes in time")) {
                return found;
            }
        }
    }

    /// What was seen up to now, and is forgotten.
    pub(super) fn all(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").try_iter().collect()
    }

    /// The node does nothing until the result is dropped, as if its process were stopped.
    pub(super) fn pause(&self) -> mpsc::Sender<()> {
        let (wake, asleep) = mpsc::channel::<()>();
        let (sleeping, sleeps) = mpsc::channel();
        self.runtime.as_ref().expect("it lives").spawn(async move {
            sleeping.send(()).expect("somebody waits");
            let _ = asleep.recv();
        });
        sleeps.recv().expect("it falls asleep");
        wake
    }

    /// The node ends without a word.
    pub(super) fn kill(mut self) {
        self.runtime.take().expect("it lives").shutdown_background();
    }

    /// The node ends as it should, and has ended.
    pub(super) fn leave(self) {
        let (done, left) = oneshot::channel();
        self.broker().leave(done);
        left.blocking_recv().expect("it has left");
    }

    /// Nobody needs the node any more.
    pub(super) fn drop_broker(mut self) {
        self.broker = None;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            if self.broker.is_none() {
                // It is leaving, and takes a moment.
                std::thread::spawn(move || {
                    runtime.block_on(tokio::time::sleep(Duration::from_secs(2)));
                });
                return;
            }
            runtime.shutdown_background();
        }
    }
}

/// Takes warnings.
#[derive(Debug)]
struct Log(Mutex<mpsc::Sender<Seen>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
            write!(line, "{field}={value:?} ").expect("a string takes everything");
        });
        let _ = self.0.lock().expect("not poisoned").send(Seen::Warned(line));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[derive(Debug)]
struct Recorder(Mutex<mpsc::Sender<Seen>>);

impl Recorder {
    fn record(&self, seen: Seen) {
        let _ = self.0.lock().expect("not poisoned").send(seen);
    }
}

impl Owners for Recorder {
    fn update(&self, app: &Arc<App>, update: Update) {
        assert_eq!(app.id(), APP);
        self.record(Seen::Update(update));
    }

    fn standing(&self, standing: Standing) {
        self.record(Seen::Standing(standing));
    }

    fn granted(&self, _: &Arc<App>, granted: Granted) {
        self.record(Seen::Granted(granted));
    }

    fn terminate(&self, _: &Arc<App>, user_id: &Arc<str>, age: Duration, done: Done) {
        self.record(Seen::Terminated(Arc::clone(user_id), age));
        drop(done);
    }

    fn happened(&self, _: &Arc<App>, event: Event, _: Duration) {
        self.record(Seen::Happened(event));
    }
}
