//! Tests with php-fpm.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::address::Address;
use super::client::{Answer, Cause, Failure, Limits, request};
use super::testing::{Directory, later, post};

type Headers<'a> = &'a [(&'a str, &'a [u8])];

/// A php-fpm of this test alone.
struct Fpm {
    directory: Directory,
    server: Child,
    address: Address,
}

impl Fpm {
    /// A pool with this many workers, at a Unix socket. `None`, and loudly, if there is no php-fpm.
    fn start(workers: u32) -> Option<Self> {
        let directory = Directory::new();
        let socket = directory.path().join("socket");
        let server = serve(&program()?, &directory, &socket.display().to_string(), workers).expect("php-fpm starts");
        Some(Self { directory, server, address: Address::Unix(socket) })
    }

    /// A pool at a TCP port.
    fn start_tcp(workers: u32) -> Option<Self> {
        let program = program()?;
        let directory = Directory::new();
        // php-fpm cannot say which port it was given. One that was free a moment ago is rarely taken.
        for _ in 0..10 {
            let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = probe.local_addr().expect("an address");
            drop(probe);
            if let Some(server) = serve(&program, &directory, &address.to_string(), workers) {
                let address = Address::parse(&format!("fastcgi://{address}")).expect("an address");
                return Some(Self { directory, server, address });
            }
        }
        panic!("php-fpm finds no port");
    }

    fn script(&self, code: &str) -> String {
        let path = self.directory.path().join("script.php");
        std::fs::write(&path, format!("<?php {code}")).expect("a file");
        path.display().to_string()
    }

    async fn send(
        &self,
        script: &str,
        headers: Headers<'_>,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        request(&self.address, &post(script, headers, body), deadline, &Limits::default()).await
    }

    /// Runs this code with these headers and this body.
    async fn run(&self, code: &str, headers: Headers<'_>, body: &[u8]) -> Result<Answer, Failure> {
        self.send(&self.script(code), headers, body, later()).await
    }

    /// Asks for a text, to see that a worker is free.
    async fn is_well(&self) -> bool {
        self.run("echo 'well';", &[], b"").await.is_ok_and(|answer| answer.body == b"well")
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        stop(&mut self.server);
    }
}

/// SIGTERM ends the workers as well.
fn stop(server: &mut Child) {
    let _ = Command::new("kill").arg(server.id().to_string()).status();
    let _ = server.wait();
}

/// The newest php-fpm of this system: Debian's has its version in its name. Without one, `TAUT_TEST_PHP_FPM=required`
/// makes that an error.
fn program() -> Option<PathBuf> {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&directories).chain([PathBuf::from("/usr/sbin")]);
    let files = directories.filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let is_fpm = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("php-fpm"));
        name.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    };
    let found = files.map(|file| file.path()).filter(is_fpm).max();
    if found.is_none() {
        let is_required = std::env::var("TAUT_TEST_PHP_FPM").is_ok_and(|value| value == "required");
        assert!(!is_required, "there is no php-fpm");
        eprintln!("\nSKIPPED: there is no php-fpm on the PATH, so the FastCGI client is not tested with it\n");
    }
    found
}

/// Starts php-fpm, and waits until it says that it listens. `None` if it stops before.
fn serve(program: &Path, directory: &Directory, listen: &str, workers: u32) -> Option<Child> {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let pool = format!("[www]\nlisten = {listen}\npm = static\npm.max_children = {workers}\nphp_flag[log_errors] = on");
    let config = format!("[global]\nerror_log = {}\n{pool}\nuser = root\ngroup = root\n", path("log"));
    std::fs::write(path("fpm.conf"), config).expect("a file");
    // No php.ini, in the foreground, with its log on standard error; and it runs as whoever runs the tests.
    let mut server = Command::new(program)
        .args(["-n", "-F", "-O", "-R", "-y", &path("fpm.conf")])
        .stderr(Stdio::piped())
        .spawn()
        .expect("php-fpm starts");
    let mut lines = BufReader::new(server.stderr.take().expect("a pipe")).lines();
    let is_ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready to handle connections"));
    if !is_ready {
        stop(&mut server);
        return None;
    }
    // A pipe that nobody reads would stop php-fpm at some time.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Some(server)
}

/// Prints some variables, each in a line.
const SHOW: &str =
    r#"foreach ($_SERVER as $name => $value) echo $name, "=", json_encode($value, JSON_UNESCAPED_SLASHES), "\n";"#;

fn lines(answer: &Answer) -> Vec<String> {
    String::from_utf8_lossy(&answer.body).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_script_answers_with_status_headers_and_body() {
    let Some(fpm) = Fpm::start(1) else { return };
    let cookies = "header('Set-Cookie: a=1', false); header('Set-Cookie: b=2', false);";
    let code = &format!("http_response_code(418); header('X-A: 1'); {cookies} echo 'hé';");
    let answer = fpm.run(code, &[], b"").await.expect("an answer");
    assert_eq!((answer.head.status, &*answer.body), (418, "hé".as_bytes()));
    assert_eq!(answer.head.header("x-a"), Some(&b"1"[..]));
    assert_eq!(answer.head.header("content-type"), Some(&b"text/html; charset=UTF-8"[..]));
    assert_eq!(answer.head.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
    assert!(answer.stderr.is_empty(), "{:?}", answer.stderr);
    let redirect = fpm.run("header('Location: /elsewhere');", &[], b"").await.expect("an answer");
    assert_eq!((redirect.head.status, &*redirect.body), (302, &b""[..]));
}

#[tokio::test]
async fn a_tcp_port_works_as_a_socket_does() {
    let Some(fpm) = Fpm::start_tcp(2) else { return };
    assert!(fpm.address.is_local() && fpm.is_well().await);
    let body = vec![b'x'; 1 << 20];
    let answer = fpm.run("echo md5(file_get_contents('php://input'));", &[], &body).await.expect("an answer");
    let same = fpm.run("echo md5(str_repeat('x', 1 << 20));", &[], b"").await.expect("an answer");
    assert_eq!(answer.body, same.body);
}

#[tokio::test]
async fn a_script_sees_the_parameters() {
    let Some(fpm) = Fpm::start(1) else { return };
    let headers: Headers<'_> =
        &[("host", b"example.com"), ("x-a", b"1"), ("cookie", b"a=1"), ("X-A", b"2"), ("cookie", b"b=2")];
    let code = format!("{SHOW} echo json_encode($_COOKIE), json_encode($_GET), json_encode(getallheaders()['X-A']);");
    let answer = fpm.run(&code, headers, b"{}").await.expect("an answer");
    let found = lines(&answer);
    for line in [
        r#"REQUEST_METHOD="POST""#,
        r#"REQUEST_URI="/chat?token=hunter2""#,
        r#"QUERY_STRING="token=hunter2""#,
        r#"CONTENT_TYPE="application/octet-stream""#,
        r#"CONTENT_LENGTH="2""#,
        r#"REMOTE_ADDR="192.0.2.7""#,
        r#"SERVER_PORT="8080""#,
        r#"HTTPS="on""#,
        r#"HTTP_HOST="example.com""#,
        r#"HTTP_X_A="1, 2""#,
        r#"{"a":"1","b":"2"}{"token":"hunter2"}"1, 2""#,
    ] {
        assert!(found.iter().any(|it| it == line), "{line} is not in {found:#?}");
    }
}

#[tokio::test]
async fn a_body_of_a_megabyte_is_echoed() {
    let Some(fpm) = Fpm::start(1) else { return };
    let body: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let answer = fpm.run("readfile('php://input');", &[], &body).await.expect("an answer");
    assert!(answer.body == body);
    // A script that does not read it answers as well.
    let answer = fpm.run("echo $_SERVER['CONTENT_LENGTH'];", &[], &body).await.expect("an answer");
    assert_eq!(answer.body, b"1000000");
}

#[tokio::test]
async fn an_answer_of_ten_megabytes_is_refused() {
    let Some(fpm) = Fpm::start(1) else { return };
    let failure = fpm.run("echo str_repeat('x', 10_000_000);", &[], b"").await.expect_err("too large");
    assert_eq!(failure.to_string(), "the answer is larger than 1048576 bytes");
    assert!(!failure.is_untouched() && fpm.is_well().await);
}

#[tokio::test]
async fn what_a_script_logs_comes_with_the_answer() {
    let Some(fpm) = Fpm::start(1) else { return };
    let answer = fpm.run("error_log('to the log'); echo $undefined, 'a';", &[], b"").await.expect("an answer");
    assert!(answer.stderr.text().contains("to the log"), "{:?}", answer.stderr);
    let code = "for ($i = 0; $i < 10_000; $i++) error_log(str_repeat('x', 1000)); echo 'a';";
    let answer = fpm.run(code, &[], b"").await.expect("an answer");
    assert_eq!((&*answer.body, answer.stderr.text().len()), (&b"a"[..], 64 * 1024));
    assert!(answer.stderr.dropped() > 9_900_000, "{}", answer.stderr.dropped());
}

#[tokio::test]
async fn an_exception_is_a_500_and_its_trace_is_for_the_log() {
    let Some(fpm) = Fpm::start(1) else { return };
    let code = "ini_set('display_errors', '0'); throw new Exception('boom');";
    let answer = fpm.run(code, &[], b"").await.expect("an answer");
    assert_eq!((answer.head.status, &*answer.body), (500, &b""[..]));
    assert!(answer.stderr.text().contains("Uncaught Exception: boom"), "{:?}", answer.stderr);
    let code = "ini_set('display_errors', '0'); ini_set('memory_limit', '4M'); str_repeat('x', 10_000_000);";
    let answer = fpm.run(code, &[], b"").await.expect("an answer");
    assert_eq!(answer.head.status, 500);
    assert!(answer.stderr.text().contains("Allowed memory size"), "{:?}", answer.stderr);
}

#[tokio::test]
async fn an_unknown_script_is_a_404_and_another_file_a_403() {
    let Some(fpm) = Fpm::start(1) else { return };
    let answer = fpm.send("/nowhere/script.php", &[], b"", later()).await.expect("an answer");
    assert_eq!((answer.head.status, &*answer.body), (404, &b"File not found.\n"[..]));
    assert!(answer.stderr.text().contains("Primary script unknown"), "{:?}", answer.stderr);
    let config = fpm.directory.path().join("fpm.conf").display().to_string();
    let answer = fpm.send(&config, &[], b"", later()).await.expect("an answer");
    assert_eq!(answer.head.status, 403);
}

#[tokio::test]
async fn a_client_cannot_forge_parameters() {
    let Some(fpm) = Fpm::start(1) else { return };
    let evil = fpm.directory.path().join("evil.php").display().to_string();
    std::fs::write(&evil, "<?php echo 'evil';").expect("a file");
    let prepend = format!("auto_prepend_file={evil}");
    let headers: Headers<'_> = &[
        ("Proxy", b"evil"),
        ("meta_user", b"evil"),
        ("Meta.User", b"evil"),
        ("Meta[User]", b"evil"),
        ("Meta User", b"evil"),
        ("Content-Length", b"9999999"),
        ("Content-Type", b"evil"),
        ("PHP_VALUE", prepend.as_bytes()),
        ("PHP-VALUE", prepend.as_bytes()),
        ("PHP_ADMIN_VALUE", prepend.as_bytes()),
        ("SCRIPT_FILENAME", evil.as_bytes()),
        ("Script-Filename", evil.as_bytes()),
        ("X-A", b"1\r\nevil: 1"),
        ("Meta-User", b"alice"),
    ];
    let answer = fpm.run(SHOW, headers, b"").await.expect("an answer");
    let found = lines(&answer);
    let http: Vec<_> = found.iter().filter(|line| line.starts_with("HTTP_")).collect();
    assert_eq!(http.len(), 3, "{http:?}");
    assert!(found.contains(&r#"HTTP_META_USER="alice""#.to_owned()), "{found:?}");
    // They are text like any other header.
    let harmless = [format!("HTTP_PHP_VALUE=\"{prepend}\""), format!("HTTP_SCRIPT_FILENAME=\"{evil}\"")];
    assert!(harmless.iter().all(|line| found.contains(line)), "{found:?}");
    let other: Vec<_> = found.iter().filter(|line| line.contains("evil") && !harmless.contains(line)).collect();
    assert!(other.is_empty(), "{other:?}");
    assert!(found.contains(&r#"CONTENT_LENGTH="0""#.to_owned()), "{found:?}");
}

#[tokio::test]
async fn a_hundred_headers_and_a_cookie_of_60_kib_arrive() {
    let Some(fpm) = Fpm::start(1) else { return };
    let names: Vec<String> = (0..100).map(|number| format!("x-number-{number}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (&**name, &b"value"[..])).collect();
    let count = "count(array_filter($_SERVER, fn($value) => $value === 'value'))";
    let code = &format!("echo {count}, ' ', strlen($_SERVER['HTTP_COOKIE'] ?? '');");
    let answer = fpm.run(code, &headers, b"").await.expect("an answer");
    assert_eq!(answer.body, b"100 0");
    let cookie = vec![b'x'; 60 * 1024];
    let answer = fpm.run(code, &[("cookie", &cookie)], b"").await.expect("an answer");
    assert_eq!(answer.body, b"0 61440");
    let cookie = vec![b'x'; 64 * 1024];
    let failure = fpm.run(code, &[("cookie", &cookie)], b"").await.expect_err("too large");
    assert!(matches!(failure.cause, Cause::Parameters(_)), "{failure:?}");
}

#[tokio::test]
async fn a_script_that_sleeps_is_not_waited_for() {
    let Some(fpm) = Fpm::start(1) else { return };
    let script = fpm.script("sleep(60);");
    let start = Instant::now();
    let deadline = start + Duration::from_millis(300);
    let failure = fpm.send(&script, &[], b"", deadline).await.expect_err("too late");
    assert!(!failure.is_untouched() && matches!(failure.cause, Cause::Deadline), "{failure:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
    // The only worker is busy. The next request waits in the backlog, and nothing tells that it was not read.
    let deadline = Instant::now() + Duration::from_millis(300);
    let failure = fpm.send(&script, &[], b"", deadline).await.expect_err("too late");
    assert!(!failure.is_untouched() && matches!(failure.cause, Cause::Deadline), "{failure:?}");
}

#[tokio::test]
async fn an_answer_of_a_killed_worker_is_not_taken() {
    let Some(fpm) = Fpm::start(1) else { return };
    let code = "echo 'half'; flush(); error_log('last words'); exec('kill -9 ' . getmypid()); sleep(60);";
    let failure = fpm.run(code, &[], b"").await.expect_err("half an answer");
    assert!(!failure.is_untouched() && matches!(failure.cause, Cause::Broken(_)), "{failure:?}");
    assert!(fpm.is_well().await, "there is no new worker");
}

#[tokio::test]
async fn a_stopped_php_fpm_leaves_requests_untouched() {
    let Some(mut fpm) = Fpm::start(1) else { return };
    assert!(fpm.is_well().await);
    stop(&mut fpm.server);
    let failure = fpm.run("", &[], b"").await.expect_err("nobody there");
    assert!(failure.is_untouched() && matches!(failure.cause, Cause::Connect(_)), "{failure:?}");
}

#[tokio::test]
async fn a_finished_request_is_answered_while_its_script_runs_on() {
    let Some(fpm) = Fpm::start(1) else { return };
    let done = fpm.directory.path().join("done").display().to_string();
    // The script goes on once the client has closed the connection, and not before.
    let code = format!("echo 'first'; fastcgi_finish_request(); touch('{done}'); echo 'lost';");
    let answer = fpm.run(&code, &[], b"").await.expect("an answer");
    assert_eq!(answer.body, b"first");
    let answer = fpm.run(&format!("echo json_encode(file_exists('{done}'));"), &[], b"").await.expect("an answer");
    assert_eq!(answer.body, b"true");
    let start = Instant::now();
    let answer = fpm.run("echo 'first'; fastcgi_finish_request(); sleep(60);", &[], b"").await.expect("an answer");
    assert_eq!(answer.body, b"first");
    assert!(start.elapsed() < Duration::from_secs(10));
}
