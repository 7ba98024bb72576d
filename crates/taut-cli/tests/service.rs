//! `taut serve` and a service manager: what it is told, and the sockets that it passes. `interop/deploy` does the same under systemd.

#![cfg(target_os = "linux")]

#[path = "process/mod.rs"]
mod process;
#[path = "../../taut-server/tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use process::{Folder, Taut};
use support::{Client, Http, PATIENCE};

const APP: [&str; 2] = ["--app", "1:key-one:secret-one"];

/// The program with a socket as systemd passes it: number 3, and told by variables that name the process.
fn with_socket(listener: &TcpListener, name: &str, options: &[&str]) -> Command {
    let served = process::command(options);
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null"]);
    command.arg(served.get_program()).args(served.get_args());
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    command.stdin(OwnedFd::from(listener.try_clone().expect("a copy")));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[test]
fn who_connects_while_the_server_restarts_is_served_by_the_next_one() {
    let (socket, address) = listener("127.0.0.1:0");
    let options = [&APP[..], &["--shards", "3", "--listen", "127.0.0.1:1"]].concat();
    let start = || Taut::start(with_socket(&socket, "taut", &options));
    let mut first = start();
    assert_eq!(first.address(), address, "in the place of --listen");
    first.logged("the setting listen is not used");
    // Shards that share a queue all take from it.
    let mut members: Vec<Client> = (0..24).map(|_| Client::member(address).0).collect();

    first.signal("TERM");
    for member in &mut members {
        assert_eq!(member.closed().0, 4100);
    }
    drop(members);
    assert!(first.ended().0.success());
    let mut waiting: Vec<TcpStream> = (0..50).map(|_| support::connect(address)).collect();
    for stream in &mut waiting {
        write!(stream, "GET /up HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("sent");
    }
    let second = start();
    for stream in &mut waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
    }
    Client::member(second.address());
}

#[test]
fn a_socket_of_systemd_is_not_open_to_programs_that_the_server_starts() {
    let (socket, _) = listener("127.0.0.1:0");
    let mut taut = Taut::start(with_socket(&socket, "taut", &APP));
    let flags = fs::read_to_string(format!("/proc/{}/fdinfo/3", taut.id())).expect("the socket");
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).expect("its flags").trim();
    let flags = u32::from_str_radix(flags, 8).expect("octal");
    assert_ne!(flags & 0o2_000_000, 0, "close-on-exec");
    taut.signal("TERM");
    assert!(taut.ended().0.success());
}

#[test]
fn the_development_app_is_not_served_on_a_socket_that_others_reach() {
    let (socket, _) = listener("0.0.0.0:0");
    let refused = process::output(with_socket(&socket, "taut", &["--listen", "127.0.0.1:1"]));
    let told = String::from_utf8(refused.stderr).expect("text");
    assert!(!refused.status.success() && told.contains("there is no app to serve on 0.0.0.0:"), "{told}");
    // Nor is a console without a password.
    let refused = process::output(with_socket(&socket, "console", &[&APP[..], &["--listen", "127.0.0.1:0"]].concat()));
    let told = String::from_utf8(refused.stderr).expect("text");
    assert!(!refused.status.success() && told.contains("console-password"), "{told}");
}

#[test]
fn the_name_of_a_socket_says_whom_it_is_for() {
    let (socket, address) = listener("127.0.0.1:0");
    let options = [&APP[..], &["--listen", "127.0.0.1:0"]].concat();
    let taut = Taut::start(with_socket(&socket, "metrics", &options));
    assert_ne!(taut.address(), address);
    assert_eq!(Http::connect(address).request("GET", "/metrics", &[], b"").status, 200);
    let refused = process::output(with_socket(&socket, "metrix", &options));
    let told = String::from_utf8(refused.stderr).expect("text");
    assert!(!refused.status.success() && told.contains("\"metrix\"") && told.contains("FileDescriptorName="), "{told}");
}

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _folder: Folder,
}

impl Manager {
    fn new() -> Self {
        let folder = Folder::new();
        let path = folder.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket, path, _folder: folder }
    }

    /// Starts a server that tells this manager.
    fn start(&self, options: &[&str], watchdog: &str) -> Taut {
        let mut command = process::command(options);
        command.args(APP).args(["--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &self.path);
        if !watchdog.is_empty() {
            command.env("WATCHDOG_USEC", watchdog);
        }
        Taut::start(command)
    }

    /// The next notification.
    fn hear(&self) -> String {
        let mut text = [0; 4096];
        let length = self.socket.recv(&mut text).expect("a notification");
        String::from_utf8(text[..length].to_vec()).expect("text")
    }
}

#[test]
fn a_service_manager_is_told_of_start_reload_and_end() {
    let folder = Folder::new();
    let file = folder.write("taut.toml", "drain-timeout = 300\n");
    let manager = Manager::new();
    let mut taut = manager.start(&["--config", &file], "");
    let ready = format!("READY=1\nSTATUS=clients on http://{}\n", taut.address());
    assert_eq!(manager.hear(), ready);

    taut.signal("HUP");
    let reloading = manager.hear();
    let began = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a reload").trim();
    assert!(began.parse::<u64>().is_ok_and(|began| began > 0), "{reloading}");
    assert_eq!(manager.hear(), ready);

    // A reload that fails ends as well, and the status says why.
    folder.write("taut.toml", "drain-timeout = \"long\"\n");
    assert!(manager.hear().starts_with("RELOADING=1\n"));
    let failed = manager.hear();
    assert!(failed.starts_with(ready.trim_end()), "{failed}");
    assert!(failed.contains("; the configuration stays as it was: ") && failed.contains("drain-timeout"), "{failed}");

    taut.signal("TERM");
    // The drain may take longer than the unit allows: 5 s of notice, 300 s, and the last steps.
    assert_eq!(manager.hear(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=315000000\n");
    assert_eq!(manager.hear(), "STATUS=draining 0 connections, for at most 300 s\n");
    assert!(taut.ended().0.success());
}

#[test]
fn a_service_manager_that_watches_gets_signs_of_life() {
    let manager = Manager::new();
    let taut = manager.start(&[], "300000");
    assert!(manager.hear().starts_with("READY=1\n"));
    for _ in 0..3 {
        assert_eq!(manager.hear(), "WATCHDOG=1\n");
    }
    drop(taut);
}

#[test]
fn a_socket_of_a_service_manager_that_is_gone_keeps_nobody_from_being_served() {
    let manager = Manager::new();
    fs::remove_file(&manager.path).expect("removed");
    let mut taut = manager.start(&[], "");
    taut.logged("the service manager cannot be told: READY=1");
    Client::member(taut.address());
}
