//! A server of NATS for tests, behind a proxy that can cut connections.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::app::{Features, Limits};
use crate::cluster::driver::random_name;
use crate::cluster::nats::protocol::{Connect, Said, Writer};
use crate::cluster::testing::nodes::{Node, PATIENCE, online};
use crate::cluster::testing::scenarios::Engine;

/// A NATS of this test alone.
pub(super) struct Cluster {
    directory: PathBuf,
    server: Option<Child>,
    port: u16,
    proxy: Proxy,
    lease: Duration,
    login: String,
    arguments: Vec<String>,
    most_connections: usize,
}

/// A cluster without nodes. `None`, and loudly, where there is no NATS.
pub(super) fn cluster(lease: Duration) -> Option<Cluster> {
    with(lease, &["-js"], "")
}

/// A server with these arguments, at which nodes log in so.
pub(super) fn with(lease: Duration, arguments: &[&str], login: &str) -> Option<Cluster> {
    if !is_there() {
        return None;
    }
    let directory = std::env::temp_dir().join(format!("taut-nats-{}", random_name()));
    std::fs::create_dir(&directory).expect("a directory");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let (proxy, login) = (Proxy::start(port), login.to_owned());
    let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
    let mut cluster = Cluster { directory, server: None, port, proxy, lease, login, arguments, most_connections: 0 };
    cluster.start();
    Some(cluster)
}

/// Whether there is a NATS. If not, it says so loudly; `TAUT_TEST_NATS=required` makes that an error.
pub(super) fn is_there() -> bool {
    let Err(error) = Command::new("nats-server").arg("--version").stdout(Stdio::null()).status() else { return true };
    let is_required = std::env::var("TAUT_TEST_NATS").is_ok_and(|value| value == "required");
    assert!(!is_required, "nats-server: {error}");
    eprintln!(
        "\nSKIPPED: there is no nats-server on the PATH ({error}), so nothing of the cluster on NATS is tested\n"
    );
    false
}

/// Asks the server at a port something, beside all nodes.
pub(super) fn ask_at(port: u16, subject: &str, payload: &[u8]) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let mut writer = Writer::default();
    writer.connect(&Connect { headers: true, no_responders: true, protocol: 1, ..Connect::default() });
    writer.subscribe("_INBOX.test", 1);
    writer.publish(subject, Some("_INBOX.test"), &[], payload);
    stream.write_all(&writer.take()).expect("it is sent");
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while let Some((said, taken)) = Said::read(&read).expect("a server says this") {
            if let Said::Message(message) = said {
                return serde_json::from_slice(message.payload).unwrap_or(Value::Null);
            }
            read.drain(..taken);
        }
        let count = stream.read(&mut buffer).expect("an answer");
        assert!(count > 0, "the server closes the connection");
        read.extend_from_slice(&buffer[..count]);
    }
}

impl Cluster {
    /// Starts it with what it has kept in files.
    pub(super) fn start_with_memory(&mut self) {
        let mut server = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-sd", "kept"])
            .args(&self.arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nats-server starts");
        let mut lines = BufReader::new(server.stderr.take().expect("it is piped")).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains("Server is ready"))), "it starts");
        // It writes little, and must not find its output closed.
        thread::spawn(move || lines.for_each(drop));
        self.server = Some(server);
    }

    /// A node that has joined, behind a proxy of its own.
    pub(super) fn join_apart(&self, name: &str) -> (Node, Proxy) {
        let proxy = Proxy::start(self.port);
        let url = format!("nats://{}127.0.0.1:{}", self.login, proxy.port);
        let node = Node::start(&url, name, self.lease, &Limits::default(), Features::default());
        node.wait_until_joined();
        (node, proxy)
    }

    /// A node that has joined, behind a proxy of its own, of an app with a webhook.
    pub(super) fn join_apart_with_webhook(&self, name: &str) -> (Node, Proxy) {
        let proxy = Proxy::start(self.port);
        let url = format!("nats://{}127.0.0.1:{}", self.login, proxy.port);
        let node = Node::start_with_webhook(&url, name, self.lease);
        node.wait_until_joined();
        (node, proxy)
    }

    /// Asks the server something, beside all nodes.
    pub(super) fn ask(&self, subject: &str, payload: &[u8]) -> Value {
        ask_at(self.port, subject, payload)
    }

    /// The subjects in a stream.
    pub(super) fn subjects(&self, stream: &str) -> Vec<String> {
        let found = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), b"{\"subjects_filter\":\">\"}");
        let subjects = found.pointer("/state/subjects").and_then(Value::as_object);
        subjects.map(|subjects| subjects.keys().cloned().collect()).unwrap_or_default()
    }

    /// Polls: NATS tells nobody.
    pub(super) fn wait_until(&self, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "it does not come: {:?}", self.subjects("taut-log"));
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Engine for Cluster {
    fn url(&self) -> String {
        format!("nats://{}127.0.0.1:{}", self.login, self.proxy.port)
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    fn start(&mut self) {
        let _ = std::fs::remove_dir_all(self.directory.join("kept"));
        self.start_with_memory();
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().and_then(|()| server.wait()).expect("it was running");
        }
    }

    fn processes(&self) -> Vec<&Child> {
        self.server.iter().collect()
    }

    fn kill_connections(&self) {
        self.proxy.cut();
    }

    fn most_connections(&self) -> usize {
        self.most_connections
    }

    fn limit_connections(&mut self, most: usize) {
        self.most_connections = most;
    }

    fn wipe(&self) {
        self.ask("$JS.API.STREAM.DELETE.taut-log", b"");
    }

    fn wait_until_told_all_but(&self, node: &Node, _: u64) {
        // It has written down what it has told before it asks this.
        assert_eq!(online(node, &["nobody"]), [""; 0]);
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

/// Carries connections to a port. It ends with its process.
pub(super) struct Proxy {
    port: u16,
    is_deaf: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let open = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&open);
        let is_deaf = Arc::new(AtomicBool::new(false));
        let deaf = Arc::clone(&is_deaf);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (from, back) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
                kept.lock()
                    .expect("not poisoned")
                    .extend([from.try_clone().expect("a socket"), back.try_clone().expect("a socket")]);
                thread::spawn(move || carry(from, server, &AtomicBool::new(false)));
                let deaf = Arc::clone(&deaf);
                thread::spawn(move || carry(back, client, &deaf));
            }
        });
        Self { port, is_deaf, open }
    }

    /// Nothing that the server says is carried from here on.
    pub(super) fn deafen(&self) {
        self.is_deaf.store(true, Ordering::Relaxed);
    }

    /// Ends all connections that there are.
    pub(super) fn cut(&self) {
        for stream in self.open.lock().expect("not poisoned").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_deaf: &AtomicBool) {
    let _ = to.set_nodelay(true);
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || (!is_deaf.load(Ordering::Relaxed) && to.write_all(&buffer[..count]).is_err()) {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
