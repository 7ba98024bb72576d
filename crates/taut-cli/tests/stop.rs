//! How `taut serve` ends, asked by signals.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

struct Server {
    process: Child,
    address: String,
    /// Open, so that the server can print.
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// One that would keep a load balancer waiting for a day.
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_taut"))
            .args(["serve", "--listen", "127.0.0.1:0", "--shards", "1", "--drain-notice", "86400"])
            .env_clear()
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on http://").expect("an address").to_owned();
        Self { process, address, _output: output }
    }

    /// The status of `/ready`, from a connection of its own.
    fn ready(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer[9..12].to_owned()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.process.id().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    fn end(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("a process") {
                return status;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it waits for something");
            // std has no wait with a limit.
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_load_balancer_is_told_in_time_and_all_are_served_meanwhile() {
    let mut server = Server::start();
    assert_eq!(server.ready(), "200");
    server.signal("-TERM");
    // The signal is on its way; once it has come, new connections are still accepted, or this would panic.
    let began = Instant::now();
    while server.ready() == "200" {
        assert!(began.elapsed() < Duration::from_secs(20), "the signal did not come");
    }
    assert_eq!(server.ready(), "503");
    server.signal("-TERM");
    assert_eq!(server.end().signal(), Some(15), "the second one ends it at once");
}

#[test]
fn where_no_load_balancer_asks_nobody_waits_for_one() {
    let mut server = Server::start();
    server.signal("-TERM");
    assert!(server.end().success());
}

#[test]
fn who_presses_ctrl_c_is_not_kept_waiting() {
    let mut server = Server::start();
    assert_eq!(server.ready(), "200");
    server.signal("-INT");
    assert!(server.end().success());
}
