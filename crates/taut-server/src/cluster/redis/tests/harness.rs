//! A Redis for tests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::driver::random_name;
use crate::cluster::testing::nodes::{Node, PATIENCE};
use crate::cluster::testing::scenarios::Engine;

/// What all keys of the cluster begin with.
pub(super) const PARTITION: &str = "taut{0}";

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
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Nodes that join from here on use another Redis.
    pub(super) fn use_url(&mut self, url: String) {
        self.url = url;
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

    /// Polls: Redis tells nobody.
    pub(super) fn wait_until(&self, is_so: impl FnMut() -> bool) {
        assert!(eventually(is_so), "it does not come: {:?}", self.calls());
    }
}

impl Engine for Cluster {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    fn start(&mut self) {
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
    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().and_then(|()| server.wait()).expect("it was running");
        }
    }

    fn processes(&self) -> Vec<&Child> {
        self.server.iter().collect()
    }

    fn kill_connections(&self) {
        self.command(&["CLIENT", "KILL", "SKIPME", "yes"]);
    }

    fn most_connections(&self) -> usize {
        self.most_connections
    }

    fn limit_connections(&mut self, most: usize) {
        self.most_connections = most;
    }

    fn wipe(&self) {
        self.command(&["FLUSHALL"]);
    }

    fn wait_until_reaped(&self) {
        let dead = format!("{PARTITION}:dead");
        self.wait_until(|| self.number(&["SCARD", &dead]) == 0);
    }

    fn wait_until_told_all_but(&self, _: &Node, held: u64) {
        let happened = format!("{PARTITION}:happened");
        self.wait_until(|| self.number(&["XLEN", &happened]) == held);
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
    arguments: Vec<String>,
    directory: PathBuf,
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
            let arguments = arguments(bus);
            let process = spawn(port, &arguments, directory);
            let mut server = Self { port, bus, arguments, directory: directory.to_owned(), process };
            if server.comes_up() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Ends it without a word.
    pub(super) fn stop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("it was running");
    }

    /// Starts it again where it was, with nothing but what it has written of its Redis Cluster.
    pub(super) fn start_again(&mut self) {
        self.process = spawn(self.port, &self.arguments, &self.directory);
        assert!(self.comes_up(), "it starts again");
    }

    pub(super) fn process(&self) -> &Child {
        &self.process
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

fn spawn(port: u16, arguments: &[String], directory: &Path) -> Child {
    Command::new("redis-server")
        .args(arguments)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", "."])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server starts")
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
