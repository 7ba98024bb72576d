//! What the program prints where nobody reads it, or where it cannot be written: nothing it does may depend on that.

#![cfg(target_os = "linux")]

#[path = "process/mod.rs"]
mod process;
#[path = "../../taut-server/tests/support/mod.rs"]
mod support;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use process::Process;
use support::{Client, Http, eventually};

#[test]
fn a_signal_drains_the_server_though_stderr_is_full_gone_or_closed() {
    for stderr in [Unwritable::Full, Unwritable::Gone, Unwritable::Closed] {
        let mut command = command("serve", stderr);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--app",
            "1:key-one:secret-one",
            "--shards",
            "2",
            "--drain-notice",
            "1",
        ]);
        // More is logged than told by hand, and both have to go nowhere.
        command.args(["--log-level", "debug"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut server = Process::new(child);
        let address = listening(&mut output);
        // A load balancer asks, so that the notice is told as well.
        assert_eq!(Http::connect(address).request("GET", "/ready", &[], b"").status, 200);
        let (mut client, _) = Client::member(address);
        server.signal("TERM");
        assert_eq!(client.closed().0, 4100, "{stderr:?}: the client is told to come back");
        assert_eq!(server.end().code(), Some(0), "{stderr:?}");
    }
}

#[test]
fn a_server_whose_stdout_cannot_be_written_serves_and_says_so() {
    let mut command = command("serve", Unwritable::Not);
    command.args(["--listen", "127.0.0.1:0", "--shards", "1"]).stdout(full()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let log = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut server = Process::new(child);
    let mut lines = log.lines().map_while(Result::ok);
    let serving = lines.find(|line| line.contains("serving")).expect("the log says where");
    let address = serving.split("addresses=[").nth(1).and_then(|rest| rest.split(']').next()).expect("an address");
    lines.find(|line| line.contains("the output cannot be written: No space left")).expect("it is told");
    assert_eq!(Http::connect(address.parse().expect("an address")).request("GET", "/up", &[], b"").status, 200);
    server.signal("TERM");
    lines.for_each(drop);
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn an_echo_whose_output_cannot_be_written_serves() {
    for driver in ["shard", "tokio"] {
        for stdout in [Unwritable::Full, Unwritable::Gone] {
            // Nobody can read which port it takes.
            let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
            let mut command = command("echo", Unwritable::Full);
            command.args(["--driver", driver, "--listen", &address.to_string()]).stdout(stdout.into_stdio());
            let mut echo = Process::new(command.spawn().expect("the program"));
            eventually("a listener", || {
                assert!(echo.is_running(), "{driver}");
                TcpStream::connect(address).is_ok()
            });
            echo.signal("TERM");
            assert_eq!(echo.end().code(), Some(0), "{driver}, {stdout:?}");
        }
    }
}

#[test]
fn a_result_that_nobody_reads_is_no_failure_and_one_that_cannot_be_written_is() {
    let folder = process::Folder::new();
    let soketi = folder.write(
        "soketi.json",
        r#"{"host": "127.0.0.1", "appManager.array.apps": [{"id": "1", "key": "a", "secret": "x"}]}"#,
    );
    let reverb = folder.write("reverb.php", "<?php");
    for arguments in
        [&["serve", "--check", "--app", "1:a:x"][..], &["import", &soketi], &["import", &reverb], &["--help"]]
    {
        let run = |stdout: Unwritable| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_taut"));
            command.env_clear().args(arguments).stdin(Stdio::null()).stdout(stdout.into_stdio()).stderr(Stdio::piped());
            command.output().expect("the program")
        };
        let unread = run(Unwritable::Gone);
        assert_eq!(unread.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&unread.stderr));
        assert_eq!(String::from_utf8_lossy(&unread.stderr), "", "{arguments:?}");
        let full = run(Unwritable::Full);
        let told = String::from_utf8_lossy(&full.stderr).into_owned();
        assert_eq!(full.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.starts_with("taut: the output cannot be written: No space left"), "{arguments:?}: {told}");
    }
}

#[test]
fn a_command_that_fails_fails_the_same_where_it_cannot_say_why() {
    for stderr in [Unwritable::Full, Unwritable::Gone, Unwritable::Closed] {
        let mut command = command("serve", stderr);
        command.args(["--listen", "here"]).stdout(Stdio::null());
        assert_eq!(command.status().expect("the program").code(), Some(1), "{stderr:?}");
    }
}

/// An output that takes nothing.
#[derive(Clone, Copy, Debug)]
enum Unwritable {
    /// It takes all.
    Not,
    /// A disk that is full.
    Full,
    /// A pipe whose reader has gone.
    Gone,
    /// No descriptor at all.
    Closed,
}

impl Unwritable {
    fn into_stdio(self) -> Stdio {
        match self {
            Self::Not | Self::Closed => Stdio::inherit(),
            Self::Full => full(),
            Self::Gone => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                drop(reader);
                writer.into()
            }
        }
    }
}

fn full() -> Stdio {
    let full: File = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    full.into()
}

fn command(name: &str, stderr: Unwritable) -> Command {
    let program = env!("CARGO_BIN_EXE_taut");
    let mut command = match stderr {
        Unwritable::Closed => {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "exec \"$0\" \"$@\" 2>&-", program]);
            shell
        }
        _ => Command::new(program),
    };
    command.env_clear().arg(name).stdin(Stdio::null()).stderr(stderr.into_stdio());
    command
}

/// Where it says that it listens.
fn listening(output: &mut impl BufRead) -> SocketAddr {
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    line.trim().rsplit("//").next().and_then(|address| address.parse().ok()).expect("an address")
}
