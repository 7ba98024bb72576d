//! The examples, as programs: started, talked to over loopback, ended.

#[path = "../src/native/tls/testing.rs"]
#[allow(dead_code, reason = "others need the rest")]
mod testing;

use std::future::IntoFuture;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use taut::{Client, CloseCode, Error, Incoming, Message, Server, WebSocket};
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// An example that serves.
struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    url: String,
}

impl Program {
    /// Starts it and waits until it says where it listens.
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(example(name)).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("not where: {line:?}"));
        let url = url.to_owned();
        Self { child, output, url }
    }

    fn client(&self, target: &str) -> Client {
        Client::new(&format!("{}{target}", self.url.strip_suffix('/').expect("a URL with a path")))
    }

    async fn connect(&self, target: &str) -> WebSocket {
        self.client(target).connect().await.unwrap()
    }

    /// Asks it to end as a service manager does.
    #[cfg(unix)]
    fn terminate(&self) {
        let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().unwrap();
        assert!(kill.success());
    }

    /// What it has left to say, and how it ended.
    #[cfg(unix)]
    fn wait(&mut self) -> (String, ExitStatus) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn received(socket: &mut WebSocket) -> String {
    socket.recv().await.unwrap().expect("open").to_string()
}

#[cfg(unix)]
#[tokio::test]
async fn the_echo_server_echoes_and_drains() {
    let mut server = Program::start("echo-server", &[]);
    let mut socket = server.client("/").deflate(taut::Deflate::default()).connect().await.unwrap();
    for message in [Message::from("hello".repeat(100)), Message::from(vec![1, 2, 3])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some(message));
    }
    server.terminate();
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::GOING_AWAY));
    let (said, status) = server.wait();
    assert!(said == "ended\n" && status.success(), "{said:?} {status}");
}

#[tokio::test]
async fn the_chat_carries_a_line_to_everybody_in_the_room() {
    let server = Program::start("chat", &[]);
    let error = server.client("/kitchen").connect().await.unwrap_err();
    assert_eq!(error.status(), Some(400), "{error}");
    let words = "say who you are, as in /kitchen?name=Ada";
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(error.response().and_then(|response| response.text()).map(str::trim_end), Some(words));

    let mut ada = server.connect("/kitchen?name=Ada").await;
    assert_eq!(received(&mut ada).await, "Ada has come");
    let mut bob = server.connect("/kitchen?name=Bob").await;
    let mut eve = server.connect("/cellar?name=Eve").await;
    for socket in [&mut ada, &mut bob] {
        assert_eq!(received(socket).await, "Bob has come");
    }
    bob.send("is anybody here?").await.unwrap();
    for socket in [&mut ada, &mut bob] {
        assert_eq!(received(socket).await, "Bob: is anybody here?");
    }
    bob.close(CloseCode::NORMAL).await.unwrap();
    ada.send("yes").await.unwrap();
    assert_eq!(received(&mut ada).await, "Ada: yes");
    // Of the kitchen nothing is heard in the cellar.
    eve.send("hm").await.unwrap();
    assert_eq!(received(&mut eve).await, "Eve has come");
    assert_eq!(received(&mut eve).await, "Eve: hm");
}

#[tokio::test]
async fn the_chat_closes_who_does_not_read_and_goes_on_with_the_others() {
    let server = Program::start("chat", &[]);
    // With little room in the kernel, so that few lines fill it.
    let stream = TcpSocket::new_v4().unwrap();
    stream.set_recv_buffer_size(16 << 10).unwrap();
    let address = server.url.strip_prefix("ws://").and_then(|rest| rest.strip_suffix('/')).expect("a URL");
    let stream = stream.connect(address.parse().unwrap()).await.unwrap();
    let mut slow = server.client("/kitchen?name=slow").connect_over(stream).await.unwrap();
    assert_eq!(received(&mut slow).await, "slow has come");

    let mut ada = server.connect("/kitchen?name=Ada").await;
    assert_eq!(received(&mut ada).await, "Ada has come");
    let line = "x".repeat(64 << 10);
    // More than the server keeps for anybody, and than the kernel does.
    for _ in 0..256 {
        ada.send(line.as_str()).await.unwrap();
        assert_eq!(received(&mut ada).await.len(), "Ada: ".len() + line.len());
    }
    let mut lines = 0;
    let reading = async {
        loop {
            match slow.recv().await {
                Ok(Some(_)) => lines += 1,
                Ok(None) => break slow.peer_close().map(|close| close.code()),
                Err(error) => break error.close_code(),
            }
        }
    };
    // A bound for the case that it fails: the server closes who is too slow within 5 seconds.
    let end = timeout(Duration::from_secs(10), reading).await.expect("the server closes who is too slow");
    assert!(lines < 256, "all lines reached a member who did not read");
    // Told, or dropped if it does not read for longer than the close timeout.
    assert!(matches!(end, Some(CloseCode::TRY_AGAIN_LATER | CloseCode::ABNORMAL)), "{end:?}");
}

#[tokio::test]
async fn the_authenticating_server_knows_its_users_by_token_and_by_cookie() {
    let server = Program::start("auth", &[]);
    let origin = server.url.replace("ws://", "http://");
    let origin = origin.trim_end_matches('/');
    let client = || server.client("/");
    let browser = || client().origin(origin);
    for client in [
        client().bearer("ada-token"),
        browser().subprotocol("chat.v1").subprotocol("bearer.ada-token"),
        browser().header("Cookie", "theme=dark; session=ada-session"),
    ] {
        let mut socket = client.connect().await.unwrap();
        assert_eq!(received(&mut socket).await, "hello, Ada");
        assert_ne!(socket.subprotocol(), Some("bearer.ada-token"));
    }
    for (client, status) in [
        (client(), 401),
        (client().bearer("ada-toke"), 401),
        (client().bearer("bob-token"), 403),
        (client().header("Cookie", "session=eve"), 401),
        // A page of another origin, whose visitor is signed in here.
        (client().origin("https://evil.example").header("Cookie", "session=ada-session"), 403),
    ] {
        let error = client.connect().await.unwrap_err();
        assert_eq!(error.status(), Some(status), "{error}");
    }
}

#[test]
fn the_tls_example_talks_to_itself_and_to_nobody_who_is_not_trusted() {
    let folder = Folder::new("tls");
    let authority = testing::Authority::new();
    let identity = authority.issue("127.0.0.1");
    let certificate = folder.write("server.pem", &identity.certificate);
    let key = folder.write("server.key", &identity.key);
    let root = folder.write("root.pem", &authority.root());
    let stranger = folder.write("stranger.pem", &testing::Authority::new().root());

    let server = Program::start("tls", &["serve", &certificate, &key]);
    let connect = |root| Command::new(example("tls")).args(["connect", &server.url, root]).output().unwrap();
    let output = connect(&root);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "connected by Some(Tls13)\nhello\n");
    let output = connect(&stranger);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("taut-examples-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file, and says where it is.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().expect("UTF-8")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_echo_client_prints_what_comes_back() {
    let server = Program::start("echo-server", &[]);
    let mut client = Command::new(example("echo-client"))
        .arg(&server.url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = format!("one\n\nthree, with ünïcode\n{}\n", "long ".repeat(50_000));
    // Dropping the standard input ends it.
    client.stdin.take().expect("piped").write_all(lines.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == lines.as_bytes(), "not what was sent");

    let output = Command::new(example("echo-client")).arg("ftp://127.0.0.1/").output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("scheme"));
}

#[tokio::test]
async fn the_chat_client_comes_back_with_the_token_that_is_valid_then() {
    const TOKENS: [&str; 3] = ["first", "second", "third"];
    let folder = Folder::new("chat-client");
    let token_file = folder.write("token", &format!("{}\n", TOKENS[0]));
    // Each connection echoes one line; then the token has expired, and the next one is in the file.
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let (file, count) = (token_file.clone(), Arc::new(AtomicUsize::new(0)));
    let serving = server.serve(move |incoming: Incoming| {
        let (file, number) = (file.clone(), count.load(Ordering::SeqCst));
        let count = Arc::clone(&count);
        async move {
            // The last one is refused for good.
            if incoming.bearer() != Some(TOKENS[number]) || number == 2 {
                return incoming.reject(403, "not with this token").await;
            }
            let mut socket = incoming.accept().await?;
            socket.send("welcome").await?;
            if let Some(line) = socket.recv().await? {
                socket.send(line).await?;
            }
            count.store(number + 1, Ordering::SeqCst);
            std::fs::write(file, TOKENS[number + 1]).map_err(Error::other)?;
            socket.close(CloseCode::new(4001)).await
        }
    });
    let serving = tokio::spawn(serving.into_future());
    let url = format!("ws://{address}/kitchen?name=Ada");
    let talking = move || {
        let mut client = Talking::start("chat-client", &[&url, &token_file]);
        let mut printed = Vec::new();
        for line in ["one", "two"] {
            printed.push(client.line());
            client.say(line);
            printed.push(client.line());
        }
        // It ends although its input goes on.
        (printed, client.wait())
    };
    let (printed, (status, events)) = tokio::task::spawn_blocking(talking).await.unwrap();
    assert_eq!(printed, ["welcome", "one", "welcome", "two"]);
    assert!(!status.success() && events.contains("403"), "{events}");
    assert_eq!(events.matches("connection lost: the server closed the connection: 4001").count(), 2, "{events}");
    // Not twice in a row at once.
    assert_eq!(events.matches("waiting").count(), 1, "{events}");
    assert!(!TOKENS.iter().any(|token| events.contains(token)), "tokens are secrets: {events}");
    serving.abort();
}

#[test]
fn the_chat_client_talks_in_the_chat_until_its_input_ends() {
    let server = Program::start("chat", &[]);
    let folder = Folder::new("chat");
    let mut client =
        Talking::start("chat-client", &[&format!("{}kitchen?name=Ada", server.url), &folder.write("token", "any")]);
    assert_eq!(client.line(), "Ada has come");
    client.say("is anybody here?");
    assert_eq!(client.line(), "Ada: is anybody here?");
    drop(client.input.take());
    let (status, events) = client.wait();
    assert!(status.success() && events.ends_with("connected\nclosed\n"), "{status} {events}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_client_over_a_unix_socket_prints_what_comes_back() {
    let folder = Folder::new("unix-client");
    let path = folder.0.join("server.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let mut socket = taut::accept_over(listener.accept().await.unwrap().0).await.unwrap();
        while let Some(message) = socket.recv().await.unwrap() {
            socket.send(message).await.unwrap();
        }
    });
    let arguments = [path.into_os_string().into_string().expect("UTF-8")];
    let talking = move || {
        let mut client = Talking::start("unix-client", &arguments.each_ref().map(String::as_str));
        client.say("one");
        let printed = client.line();
        for line in ["two", "three"] {
            client.say(line);
        }
        drop(client.input.take());
        // What came back while it was closing.
        ([printed, client.line(), client.line()], client.wait())
    };
    let (printed, (status, errors)) = tokio::task::spawn_blocking(talking).await.unwrap();
    assert_eq!(printed, ["one", "two", "three"]);
    assert!(status.success() && errors.is_empty(), "{status} {errors}");
    serving.await.unwrap();

    let output = Command::new(example("unix-client")).arg(folder.0.join("nobody.sock")).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("cannot connect to"), "{errors}");
}

/// An example that reads lines and prints lines.
struct Talking {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Talking {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(example(name));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, input, output }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("open"), "{line}").unwrap();
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let Some(line) = self.output.next() else { panic!("it has ended: {:?}", self.wait()) };
        line.unwrap()
    }

    /// How it ended, and what it reported.
    fn wait(&mut self) -> (ExitStatus, String) {
        let mut errors = String::new();
        self.child.stderr.take().expect("once").read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap(), errors)
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An example's program. `cargo test` builds it; with a single test selected it may still have to be.
fn example(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("TAUT_EXAMPLES") {
        return PathBuf::from(folder).join(name);
    }
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).expect("target/debug/deps/…").to_owned();
    let program = profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    if !program.exists() {
        let release = profile.ends_with("release").then_some("--release");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--package", "taut", "--example", name]).args(release);
        assert!(cargo.status().unwrap().success(), "the example does not build");
    }
    program
}
