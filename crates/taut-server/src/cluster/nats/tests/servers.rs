//! Three servers that are one NATS, and what becomes of nodes when one of them dies.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::harness::{ask_at, is_there};
use crate::app::{Features, Limits};
use crate::cluster::driver::random_name;
use crate::cluster::testing::nodes::*;
use crate::hub::engine::Standing;

/// A NATS cluster of this test alone.
struct Servers {
    directory: PathBuf,
    running: Vec<Child>,
    ports: [u16; 3],
}

impl Servers {
    /// `None`, and loudly, where there is no NATS.
    fn start() -> Option<Self> {
        if !is_there() {
            return None;
        }
        // A port that was free may be taken a moment later.
        (0..5).find_map(|_| Self::try_start()).or_else(|| panic!("three servers do not find ports"))
    }

    fn try_start() -> Option<Self> {
        let directory = std::env::temp_dir().join(format!("taut-nats-{}", random_name()));
        std::fs::create_dir(&directory).expect("a directory");
        let held: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let ports: Vec<_> = held.iter().map(|it| it.local_addr().expect("an address").port()).collect();
        drop(held);
        let routes: Vec<_> = ports[3..].iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut started = Self { directory, running: Vec::new(), ports: [ports[0], ports[1], ports[2]] };
        for number in 0..3 {
            let mut server = Command::new("nats-server")
                .args(["-a", "127.0.0.1", "-p", &ports[number].to_string(), "-n", &number.to_string(), "-js"])
                .args(["-sd", &format!("kept-{number}"), "--cluster_name", "taut", "--cluster", &routes[number]])
                .args(["--routes", &routes.join(",")])
                .current_dir(&started.directory)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("nats-server starts");
            let mut lines = BufReader::new(server.stderr.take().expect("it is piped")).lines();
            let is_ready = lines.any(|line| line.is_ok_and(|line| line.contains("Server is ready")));
            thread::spawn(move || lines.for_each(drop));
            started.running.push(server);
            if !is_ready {
                return None;
            }
        }
        Some(started)
    }

    fn url(&self) -> String {
        let servers = self.ports.map(|port| format!("127.0.0.1:{port}"));
        format!("nats://{}", servers.join(","))
    }

    /// Kills the server that decides the order of the log.
    fn kill_leader(&mut self) {
        let stream = ask_at(self.ports[0], "$JS.API.STREAM.INFO.taut-log", b"");
        assert_eq!(stream.pointer("/config/num_replicas"), Some(&Value::from(3)), "{stream}");
        let leader = stream.pointer("/cluster/leader").and_then(Value::as_str).expect("there is one");
        let number: usize = leader.parse().expect("they are called by their numbers");
        self.running[number].kill().and_then(|()| self.running[number].wait()).expect("it was running");
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.running {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn a_server_of_three_may_die_and_nobody_is_forgotten() {
    let Some(mut servers) = Servers::start() else { return };
    let join =
        |name| Node::start(&servers.url(), name, Duration::from_secs(3), &Limits::default(), Features::default());
    let (a, b) = (join("a"), join("b"));
    for node in [&a, &b] {
        node.wait_until_joined();
        subscribed(node, "presence-a");
        subscribed(node, "cache-a");
    }
    assert!(joined(&a, "presence-a", "ann") && joined(&b, "presence-a", "bob"));
    a.send(keep("cache-a", "kept"));
    assert_eq!(event(&b).0, "kept");
    let died = Instant::now();
    servers.kill_leader();
    for node in [&a, &b] {
        standing(node, Standing::Away);
        standing(node, Standing::Joined);
    }
    eprintln!("both nodes are back {:?} after the server's death", died.elapsed());
    assert!(joined(&a, "presence-a", "cid"));
    for node in [&a, &b] {
        assert_eq!(members(node, "presence-a"), ["ann", "bob", "cid"]);
    }
    a.send(keep("cache-a", "kept again"));
    assert_eq!(event(&b).0, "kept again");
}
