//! The whole, with real receivers over real sockets.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout;

use crate::app::{AppConfig, Limits, Webhook, WebhookEvent};
use crate::apps::{App, Apps};
use crate::events::{Event, EventBus};
use crate::http::client::Client;
use crate::http::testing::{Answer, Nobody, Received, Receiver};
use crate::pusher::auth::Signature;
use crate::pusher::socket_id::SocketId;

use super::testing::Folder;
use super::{DataDirectory, Statistics, Webhooks};

/// An event bus, and webhooks that read it.
struct Server {
    apps: Arc<Apps>,
    app: Arc<App>,
    events: EventBus,
    webhooks: Webhooks,
}

impl Server {
    fn start(webhooks: Vec<Webhook>, folder: Option<&Folder>) -> Self {
        Self::start_in(webhooks, folder.map(Folder::path))
    }

    fn start_in(webhooks: Vec<Webhook>, folder: Option<&Path>) -> Self {
        let app = AppConfig { webhooks, ..AppConfig::development() };
        let apps = Arc::new(Apps::new([app], &Limits::default()).expect("one app"));
        let (events, entries) = EventBus::new();
        let data = folder.map(|folder| DataDirectory::open(folder).expect("a file"));
        let webhooks = Webhooks::start(&Handle::current(), &apps, events.clone(), entries, data, Client::new());
        let app = apps.by_id("1").expect("the app");
        Self { apps, app, events, webhooks }
    }

    fn record(&self, event: Event) {
        self.events.record(&self.app, event);
    }

    async fn flush(&self) {
        self.webhooks.flush(PATIENCE).await;
    }

    /// Waits until the figures are as they should be.
    async fn until(&self, is_so: impl Fn(&Statistics) -> bool) -> Statistics {
        let wait = async {
            loop {
                let statistics = self.webhooks.statistics();
                if is_so(&statistics) {
                    return statistics;
                }
                // Figures have nobody to wake.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{:?}", self.webhooks.statistics()))
    }
}

fn occupied(channel: &str) -> Event {
    Event::ChannelOccupied { channel: channel.into() }
}

fn vacated(channel: &str) -> Event {
    Event::ChannelVacated { channel: channel.into() }
}

fn client_event(data: &str) -> Event {
    let socket_id = SocketId::parse("1.2").expect("an id");
    Event::ClientEvent {
        channel: "private-a".into(),
        event: "client-a".into(),
        data: data.into(),
        socket_id,
        user_id: None,
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_request_is_as_receivers_of_pusher_expect_it() {
    let receiver = Receiver::start(Answer::Ok).await;
    let webhook = Webhook {
        headers: vec![("X-Mine".to_owned(), "yes".to_owned())],
        ..Webhook::new(receiver.url("/hook?token=1"))
    };
    let server = Server::start(vec![webhook], None);
    server.record(client_event(r#"{"a":1}"#));
    let request = receiver.next().await;
    let header = |name: &str| request.headers.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!((request.method.as_str(), request.uri.as_str()), ("POST", "/hook?token=1"));
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("x-pusher-key"), Some("app-key"));
    assert_eq!(header("x-mine"), Some("yes"));
    assert_eq!(header("user-agent"), Some(concat!("taut/", env!("CARGO_PKG_VERSION"))));
    let signature = Signature::of("app-secret", &[&request.body]).to_string();
    assert_eq!(header("x-pusher-signature"), Some(signature.as_str()));
    let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
    let age = super::milliseconds(std::time::SystemTime::now()) - body["time_ms"].as_u64().expect("a number");
    assert!(age < 20_000, "{age}");
    assert_eq!(body["events"][0]["data"], r#"{"a":1}"#);
    let statistics = server.until(|statistics| statistics.delivered == 1).await;
    assert_eq!((statistics.queued, statistics.failed_attempts), (0, 0));
}

#[tokio::test]
async fn each_webhook_gets_what_it_wants_and_nothing_else() {
    let all = Receiver::start(Answer::Ok).await;
    let some = Receiver::start(Answer::Ok).await;
    let filtered = Webhook {
        events: vec![WebhookEvent::CacheMiss, WebhookEvent::ChannelOccupied],
        channel_prefix: "cache-".to_owned(),
        batching: true,
        ..Webhook::new(some.url("/"))
    };
    let server = Server::start(vec![Webhook::new(all.url("/")), filtered], None);
    for channel in ["a", "cache-a", "b", "cache-b"] {
        server.record(Event::CacheMiss { channel: channel.into() });
        server.record(Event::SubscriptionCount { channel: channel.into(), count: 1 });
    }
    server.flush().await;
    assert_eq!(all.requests().len(), 8);
    let requests = some.requests();
    let events: Vec<String> = requests.iter().flat_map(Received::channels).collect();
    assert_eq!(events, ["cache-a", "cache-b"]);
    for request in requests {
        let signature = Signature::of("app-secret", &[&request.body]).to_string();
        assert_eq!(request.headers["x-pusher-signature"], *signature, "over what is sent, and not over what is not");
    }
}

#[tokio::test]
async fn events_of_one_moment_come_in_one_request_where_that_is_wanted() {
    let receiver = Receiver::start(Answer::Ok).await;
    let folder = Folder::new("batch");
    let server = Server::start(vec![Webhook { batching: true, ..Webhook::new(receiver.url("/")) }], Some(&folder));
    for number in 0..250 {
        server.record(occupied(&number.to_string()));
    }
    server.flush().await;
    let sizes: Vec<usize> = receiver.requests().iter().map(|request| request.channels().len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 250, "{sizes:?}");
    assert!(sizes.iter().all(|&size| size <= 100) && sizes.len() <= 6, "{sizes:?}");
}

#[tokio::test]
async fn what_is_undone_in_time_is_not_told_and_the_rest_after_three_seconds() {
    let receiver = Receiver::start(Answer::Ok).await;
    // This one wants to know of no removal, and has to be spared the return all the same.
    let occupations = Receiver::start(Answer::Ok).await;
    let only_occupied = Webhook { events: vec![WebhookEvent::ChannelOccupied], ..Webhook::new(occupations.url("/")) };
    let server = Server::start(vec![Webhook::new(receiver.url("/")), only_occupied], None);
    server.record(occupied("reloads"));
    server.record(vacated("reloads"));
    server.record(vacated("leaves"));
    server.record(occupied("reloads"));
    let start = Instant::now();
    let statistics = server.until(|statistics| statistics.recorded == 4).await;
    assert_eq!(statistics.held_back, 1);
    let mut told = Vec::new();
    for _ in 0..2 {
        told.extend(receiver.next().await.names());
    }
    assert_eq!(told, ["channel_occupied", "channel_vacated"]);
    assert!(start.elapsed() >= Duration::from_millis(2900), "{:?}", start.elapsed());
    server.flush().await;
    assert_eq!((receiver.requests().len(), occupations.requests().len()), (0, 1));
}

#[tokio::test]
async fn a_failed_request_is_repeated_with_the_same_body_and_the_secret_of_then() {
    let receiver = Receiver::start(Answer::Fail(503)).await;
    let server = Server::start(vec![Webhook::new(receiver.url("/"))], None);
    server.record(occupied("a"));
    let first = receiver.next().await;
    let mut app = AppConfig::new("1", "other-key", "other-secret");
    app.webhooks = vec![Webhook::new(receiver.url("/"))];
    server.apps.replace([app], &Limits::default()).expect("the same app");
    receiver.answer(Answer::Ok);
    let second = receiver.next().await;
    assert_eq!(first.body, second.body);
    assert_eq!(first.headers["x-pusher-key"], "app-key");
    assert_eq!(second.headers["x-pusher-key"], "other-key");
    assert_eq!(second.headers["x-pusher-signature"], *Signature::of("other-secret", &[&second.body]).to_string());
    let statistics = server.until(|statistics| statistics.delivered == 1).await;
    assert_eq!((statistics.failed_attempts, statistics.queued), (1, 0));
}

#[tokio::test]
async fn addresses_that_answer_late_or_never_delay_no_others() {
    let silent = Receiver::start(Answer::Never).await;
    let alive = Receiver::start(Answer::Ok).await;
    let nobody = Nobody::new();
    let webhooks = [silent.url("/"), nobody.url(), alive.url("/")].map(Webhook::new);
    let server = Server::start(webhooks.into(), None);
    let start = Instant::now();
    for number in 0..200 {
        server.record(occupied(&number.to_string()));
    }
    for _ in 0..200 {
        alive.next().await;
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let statistics = server.webhooks.statistics();
    assert!(statistics.queued >= 400 && statistics.failed_attempts > 0, "{statistics:?}");
}

#[tokio::test]
async fn what_can_never_succeed_is_a_dead_letter_and_can_be_sent_again() {
    let receiver = Receiver::start(Answer::Fail(503)).await;
    let folder = Folder::new("dead");
    let url = receiver.url("/?token=hunter2");
    let server = Server::start(vec![Webhook::new(url.as_str())], Some(&folder));
    server.record(occupied("a"));
    let first = receiver.next().await;
    server.apps.replace([AppConfig::development()], &Limits::default()).expect("the same app");
    server.until(|statistics| statistics.dead == 1 && statistics.queued == 0).await;
    let letters = server.webhooks.dead_letters("1");
    assert_eq!((letters.len(), letters[0].attempts), (1, 2));
    assert!(letters[0].last_error.contains("no webhook with this address"), "{}", letters[0].last_error);
    assert!(!letters[0].url.contains("hunter2") && server.webhooks.dead_letters("other").is_empty());

    let with = AppConfig { webhooks: vec![Webhook::new(url.as_str())], ..AppConfig::development() };
    server.apps.replace([with], &Limits::default()).expect("the same app");
    receiver.answer(Answer::Ok);
    assert!(!server.webhooks.retry("1", 99) && !server.webhooks.retry("other", letters[0].id));
    assert!(server.webhooks.retry("1", letters[0].id));
    let again = receiver.next().await;
    assert_eq!((first.channels(), again.channels()), (vec!["a".to_owned()], vec!["a".to_owned()]));
    assert_ne!(first.body, again.body, "it says that it is of now");
    assert!(server.webhooks.dead_letters("1").is_empty());
}

#[tokio::test]
async fn without_a_folder_nothing_waits_when_the_server_ends() {
    let receiver = Receiver::start(Answer::Fail(500)).await;
    let server = Server::start(vec![Webhook::new(receiver.url("/"))], None);
    server.record(vacated("a"));
    let start = Instant::now();
    let (first, ()) = tokio::join!(
        async {
            let first = receiver.next().await;
            receiver.answer(Answer::Ok);
            first
        },
        server.flush()
    );
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!((first.names(), receiver.requests().len()), (vec!["channel_vacated".to_owned()], 1));
}

#[tokio::test]
async fn with_a_folder_what_waits_is_left_to_the_next_run() {
    let receiver = Receiver::start(Answer::Fail(500)).await;
    let folder = Folder::new("next-run");
    let webhooks = || vec![Webhook::new(receiver.url("/"))];
    let server = Server::start(webhooks(), Some(&folder));
    server.record(occupied("a"));
    receiver.next().await;
    server.record(vacated("gone"));
    server.record(vacated("back"));
    server.flush().await;
    let statistics = server.webhooks.statistics();
    assert_eq!((statistics.held_back, statistics.queued), (2, 1));
    drop(server);
    receiver.requests();
    receiver.answer(Answer::Ok);
    let server = Server::start(webhooks(), Some(&folder));
    server.record(occupied("back"));
    assert_eq!(receiver.next().await.channels(), ["a"]);
    assert_eq!(receiver.next().await.channels(), ["gone"]);
    let statistics = server.until(|statistics| statistics.queued == 0).await;
    assert_eq!((statistics.held_back, receiver.requests().len()), (0, 0));
    server.flush().await;
    drop(server);
    let server = Server::start(webhooks(), Some(&folder));
    assert_eq!(
        (server.webhooks.statistics(), server.webhooks.oldest()),
        (Statistics::default(), None),
        "the file forgets as well"
    );
}

/// Kills a process again and again while it takes events down and delivers them; at the end a last one delivers what is left.
#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_taken_down() {
    let runtime = Runtime::new().expect("a runtime");
    let receiver = runtime.block_on(Receiver::start(Answer::Sometimes(30)));
    let folder = Folder::new("kill");
    let start = |first: u64| child("records_until_it_is_killed", &folder, &receiver.url("/"), first);
    let mut expected = Vec::new();
    for round in 1..=KILLS {
        let first = round * 1_000_000;
        let mut process = start(first);
        let chance = getrandom::u64().expect("randomness");
        let mut recorded = 0;
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let mut until = 1 + chance % 40;
        while let Some(Ok(line)) = lines.next() {
            if let Some((_, number)) = line.split_once("recorded ") {
                recorded = number.parse().expect("a number");
                if until == 1 {
                    thread::sleep(Duration::from_micros((chance >> 32) % 30_000));
                    process.kill().expect("SIGKILL");
                }
                until = until.saturating_sub(1);
            }
        }
        process.wait().expect("an end");
        expected.extend(first..first + recorded);
    }
    // Whoever was unlucky often enough would wait for long.
    receiver.answer(Answer::Ok);
    let mut last = start(0);
    let output = BufReader::new(last.stdout.take().expect("a pipe")).lines();
    let output: Vec<String> = output.map_while(Result::ok).collect();
    assert!(last.wait().expect("an end").success(), "{output:#?}");
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    for request in receiver.requests() {
        for channel in request.channels() {
            *times.entry(channel.parse().expect("a number")).or_default() += 1;
        }
    }
    let missing: Vec<u64> = expected.iter().filter(|number| !times.contains_key(number)).copied().collect();
    let all: u32 = times.values().sum();
    println!(
        "{KILLS} kills, {} events taken down before them, {} received, {all} times in all, {} missing",
        expected.len(),
        times.len(),
        missing.len()
    );
    assert!(!expected.is_empty() && missing.is_empty(), "{missing:?}");
}

/// Starts this program again, to run one function.
fn child(name: &str, folder: &Folder, url: &str, first: u64) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", &format!("webhooks::tests::{name}"), "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .env(URL, url)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

#[test]
#[ignore = "another test starts and kills it"]
fn records_until_it_is_killed() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let url = env::var(URL).expect("an address");
    let first: u64 = env::var(FIRST).expect("a number").parse().expect("a number");
    Runtime::new().expect("a runtime").block_on(async {
        // Half of the events come in batches.
        let batching = !first.is_multiple_of(2_000_000);
        let webhook = Webhook { batching, ..Webhook::new(url) };
        let server = Server::start_in(vec![webhook], Some(folder.as_ref()));
        if first == 0 {
            let left = server.webhooks.statistics();
            println!("left by those before: {left:?}");
            server.until(|statistics| statistics.queued == 0 && statistics.held_back == 0).await;
            server.flush().await;
            return;
        }
        let mut recorded = 0;
        loop {
            for _ in 0..20 {
                let channel = (first + recorded).to_string();
                server.record(if recorded % 10 == 0 { vacated(&channel) } else { occupied(&channel) });
                recorded += 1;
            }
            server.webhooks.recorded(recorded).await;
            println!("recorded {recorded}");
            std::io::stdout().flush().expect("a pipe");
            let statistics = server.until(|statistics| statistics.queued < 1000).await;
            assert_eq!((statistics.dropped, statistics.store_errors), (0, 0));
        }
    });
}

/// In a process of its own, so that its memory is its own.
#[cfg(target_os = "linux")]
#[test]
fn what_waits_for_addresses_that_do_not_answer_takes_no_more_memory_than_it_may() {
    let folder = Folder::new("memory");
    let mut process = child("fills_up", &folder, "http://127.0.0.1:9/", 0);
    let output = BufReader::new(process.stdout.take().expect("a pipe")).lines();
    let output: Vec<String> = output.map_while(Result::ok).collect();
    let success = process.wait().expect("an end").success();
    for line in output.iter().filter(|line| line.contains("MiB")) {
        println!("{line}");
    }
    assert!(success, "{output:#?}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "another test starts it"]
fn fills_up() {
    if env::var_os(FOLDER).is_none() {
        return;
    }
    let resident = || {
        let status = fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a figure") / 1024
    };
    Runtime::new().expect("a runtime").block_on(async {
        let silent = Receiver::start(Answer::Never).await;
        let webhooks = vec![Webhook::new(silent.url("/a")), Webhook::new(silent.url("/b"))];
        let server = Server::start(webhooks, None);
        let before = resident();
        let data = "x".repeat(2048);
        for number in 1..=100_000 {
            server.record(client_event(&data));
            if number % 1000 == 0 {
                server.webhooks.recorded(number).await;
            }
        }
        let statistics = server.webhooks.statistics();
        let grown = resident() - before;
        println!(
            "400 MiB came, {} MiB wait, {} requests were dropped, and the process has grown by {grown} MiB",
            statistics.queued_bytes >> 20,
            statistics.dropped
        );
        assert!(statistics.queued_bytes < super::BOUNDS.bytes as u64 && statistics.dropped > 50_000, "{statistics:?}");
        assert!(grown < 200, "{grown} MiB");
    });
}

/// In a process of its own, since the system's limit of the length of files takes the place of a full disk.
#[cfg(target_os = "linux")]
#[test]
fn after_a_full_disk_the_store_has_all_that_waits_as_soon_as_there_is_room() {
    let folder = Folder::new("full");
    // Told to ignore the signal that comes with the limit, which nobody can do for himself without unsafe code.
    let mut process = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", "webhooks::tests::goes_on_while_the_disk_is_full", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let output = BufReader::new(process.stdout.take().expect("a pipe")).lines();
    let output: Vec<String> = output.map_while(Result::ok).collect();
    assert!(process.wait().expect("an end").code().is_none(), "{output:#?}");
    let waiting = output.iter().find_map(|line| line.strip_prefix("waiting: "));
    let waiting: usize = waiting.unwrap_or_else(|| panic!("{output:#?}")).parse().expect("a number");
    let (_, contents) = super::Store::open(folder.path()).expect("the file");
    // Meanwhile a removal may have become a request.
    assert_eq!(contents.deliveries.len() + contents.held.len(), waiting);
    assert!(contents.dead.is_empty());
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "another test starts it"]
fn goes_on_while_the_disk_is_full() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let file = Path::new(&folder).join("webhooks.redb");
    let limit = |bytes: &str| {
        let (process, limit) = (std::process::id().to_string(), format!("--fsize={bytes}:"));
        assert!(Command::new("prlimit").args(["--pid", &process, &limit]).status().expect("prlimit").success());
    };
    Runtime::new().expect("a runtime").block_on(async {
        let (silent, answering) = (Receiver::start(Answer::Never).await, Receiver::start(Answer::Ok).await);
        let of = |events, url| Webhook { events: vec![events], ..Webhook::new(url) };
        let webhooks = vec![
            of(WebhookEvent::ClientEvent, silent.url("/")),
            of(WebhookEvent::CacheMiss, answering.url("/")),
            of(WebhookEvent::ChannelVacated, silent.url("/")),
        ];
        let server = Server::start_in(webhooks, Some(folder.as_ref()));
        let data = "x".repeat(20_000);
        server.record(client_event(&data));
        server.webhooks.recorded(1).await;
        limit(&fs::metadata(&file).expect("the file").len().to_string());
        let mut recorded = 1;
        while server.webhooks.statistics().store_failing == 0 {
            server.record(client_event(&data));
            recorded += 1;
            server.webhooks.recorded(recorded).await;
        }
        // It is told once, and what comes now is told to its receivers all the same.
        for _ in 0..20 {
            server.record(client_event(&data));
            server.record(Event::CacheMiss { channel: "cache-a".into() });
            assert_eq!(answering.next().await.channels(), ["cache-a"]);
        }
        let statistics = server.until(|statistics| statistics.queued == recorded + 20).await;
        assert_eq!((statistics.store_errors, statistics.store_failing, statistics.dropped), (1, 1, 0));
        limit("unlimited");
        server.record(vacated("before"));
        let statistics = server.until(|statistics| statistics.store_failing == 0).await;
        assert_eq!(statistics.store_errors, 1);
        server.record(client_event(&data));
        server.record(vacated("after"));
        server.webhooks.recorded(recorded + 2 * 20 + 3).await;
        println!("waiting: {}", recorded + 20 + 3);
        std::io::stdout().flush().expect("a pipe");
        // As a crash would: nothing is put in order before.
        std::process::abort();
    });
}

const KILLS: u64 = 8;

const FOLDER: &str = "TAUT_TEST_WEBHOOK_FOLDER";
const URL: &str = "TAUT_TEST_WEBHOOK_URL";
const FIRST: &str = "TAUT_TEST_WEBHOOK_FIRST";
