//! `taut serve` as a process of its own, looked at from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::{Http, METRICS_TOKEN};

/// A server that runs; it ends with this.
pub(crate) struct Taut {
    child: Child,
    address: SocketAddr,
    /// It has to be asked by TLS, which is more than counting is worth.
    is_secure: bool,
    log: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl Taut {
    /// Starts the real program with one app, `1:key-one:secret-one`, and two event loops.
    pub(crate) fn serve(arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n \"$(ulimit -H -n)\" && exec \"$0\" \"$@\"", TAUT]);
        Self::start(command, arguments)
    }

    /// The same with no more than so many descriptors.
    pub(crate) fn serve_with_descriptors(descriptors: usize, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""), TAUT]);
        Self::start(command, arguments)
    }

    fn start(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--app", "1:key-one:secret-one", "--shards", "2"])
            .args(["--metrics-token", METRICS_TOKEN])
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("taut starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, written) = (child.stderr.take().expect("piped"), Arc::clone(&log));
        let reading = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = written.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut greeting = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut greeting).expect("a line");
        let address = greeting.trim().rsplit("//").next().and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address, but {greeting:?}: {}", text(&log)));
        let is_secure = arguments.contains(&"--tls-key");
        Self { child, address, is_secure, log, reading: Some(reading) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the process takes now.
    pub(crate) fn look(&self) -> Look {
        let folder = format!("/proc/{}", self.child.id());
        let memory = fs::read_to_string(format!("{folder}/smaps_rollup")).expect("the server runs");
        let descriptors = fs::read_dir(format!("{folder}/fd")).expect("the server runs").count();
        let size = |name| kibibytes(&memory, name);
        Look { own: size("Anonymous:"), pss: size("Pss:"), rss: size("Rss:"), descriptors }
    }

    /// Processor time that it has taken.
    pub(crate) fn processor_time(&self) -> Duration {
        processor_time(&format!("/proc/{}/stat", self.child.id()))
    }

    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        Http::connect(self.address).metrics()
    }

    /// Waits until the server has let go of everything: connections, channels and descriptors are as they were, and its memory is within
    /// `margin` of what it was. Gives what it takes then; fails when that has not come to be after `patience`.
    pub(crate) fn settle(&self, before: &Rest, margin: u64, patience: Duration) -> Rest {
        let start = Instant::now();
        let mut rest = self.rest();
        while !rest.is_within(before, margin) {
            let waited = start.elapsed();
            assert!(
                waited < patience,
                "after {waited:?} the server still holds\n  {rest}, and before it were\n  {before}"
            );
            // Nobody announces that memory has been given back.
            thread::sleep(LOOKING);
            rest = self.rest();
        }
        rest
    }

    /// Waits until it has accepted all that wants to come, as far as it has room.
    pub(crate) fn accepted(&self, count: usize) {
        let start = Instant::now();
        while self.look().descriptors < count && start.elapsed() < Duration::from_secs(3) {
            thread::sleep(LOOKING);
        }
    }

    /// Waits until nothing changes any more; for a first measurement, with which nothing can be compared.
    pub(crate) fn at_rest(&self) -> Rest {
        let start = Instant::now();
        let mut last = self.rest();
        loop {
            thread::sleep(STEADY);
            let rest = self.rest();
            let is_steady = rest.counts() == last.counts() && rest.look.own.abs_diff(last.look.own) <= 64;
            if is_steady || start.elapsed() > Duration::from_secs(20) {
                return rest;
            }
            last = rest;
        }
    }

    fn rest(&self) -> Rest {
        // First: who asks for the metrics takes a descriptor, until its end is noticed.
        let look = self.look();
        if self.is_secure {
            return Rest { connections: 0.0, channels: 0.0, look };
        }
        let metrics = self.metrics();
        let count = |sample: &str| metrics[sample];
        Rest {
            connections: count("taut_connections{app=\"1\",transport=\"ws\"}"),
            channels: count("taut_channels{app=\"1\"}"),
            look,
        }
    }

    /// That nothing has gone wrong inside, and that it runs.
    pub(crate) fn check_log(&mut self) {
        assert!(self.child.try_wait().expect("its child").is_none(), "the server has ended:\n{}", text(&self.log));
        let log = text(&self.log);
        for word in ["panicked", "ERROR", "overflow", "fatal"] {
            assert!(!log.contains(word), "the log says {word:?}:\n{log}");
        }
    }
}

impl Drop for Taut {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
        if thread::panicking() {
            eprintln!("the server's log:\n{}", text(&self.log));
        }
    }
}

/// What a process takes. Memory is in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// What it has allocated and is held for it. The other figures change with the pages of the program that happen to be read, and with other
    /// processes of it.
    pub(crate) own: u64,
    pub(crate) pss: u64,
    pub(crate) rss: u64,
    pub(crate) descriptors: usize,
}

/// What a server holds while nobody wants anything of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    pub(crate) connections: f64,
    pub(crate) channels: f64,
    pub(crate) look: Look,
}

impl Rest {
    /// What has to be exactly as it was.
    fn counts(&self) -> (f64, f64, usize) {
        (self.connections, self.channels, self.look.descriptors)
    }

    fn is_within(&self, before: &Self, margin: u64) -> bool {
        self.counts() == before.counts() && self.look.own <= before.look.own + margin
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, channels, look: Look { own, pss, rss, descriptors } } = self;
        write!(
            formatter,
            "{own} KiB of its own ({pss} Pss, {rss} RSS), {descriptors} descriptors, {connections} connections, {channels} channels"
        )
    }
}

/// Processor time of a process or thread, from its `stat`.
pub(crate) fn processor_time(path: &str) -> Duration {
    let stat = fs::read_to_string(path).expect("it runs");
    // The name, in parentheses, may hold anything; the fields after it are numbered from 3.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

fn kibibytes(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    value.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

fn text(log: &Mutex<String>) -> String {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

const TAUT: &str = env!("CARGO_BIN_EXE_taut");

/// How often is looked whether memory has come back.
const LOOKING: Duration = Duration::from_millis(50);

/// What does not change for so long has come to rest: longer than a second, in which shards and pools tidy up.
const STEADY: Duration = Duration::from_millis(1200);
