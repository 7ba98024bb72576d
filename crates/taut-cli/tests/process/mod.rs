//! The program as its users have it: a process, its log, its signals, its files.

#![allow(dead_code, unreachable_pub, reason = "a module of tests, each a program of its own that takes what it needs")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::support::PATIENCE;

/// A server that runs until it is told to end, or until the test is over.
pub struct Taut {
    process: Process,
    origin: String,
    address: SocketAddr,
    log: Receiver<String>,
    printed: Receiver<String>,
    /// What the test has read of the log.
    read: Vec<String>,
}

impl Taut {
    /// Starts to serve, at a port of the system's choosing.
    pub fn serve(options: &[&str]) -> Self {
        let mut command = command(options);
        command.args(["--listen", "127.0.0.1:0"]);
        Self::start(command)
    }

    /// Starts a command that prints first where it listens.
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let (tell, log) = mpsc::channel();
        thread::spawn(move || errors.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let origin = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
        let address = origin.split_once("://").and_then(|(_, address)| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("{line:?}: {:?}", log.iter().collect::<Vec<_>>()));
        // What else it prints must not fill the pipe.
        let (tell, printed) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        Self { process: Process::new(child), origin, address, log, printed, read: Vec::new() }
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id
    }

    /// Where it says that it listens.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next line after the first that it prints to its standard output and that has this text.
    pub fn printed(&self, text: &str) -> String {
        let start = Instant::now();
        let rest = || PATIENCE.saturating_sub(start.elapsed());
        let mut lines = std::iter::from_fn(|| self.printed.recv_timeout(rest()).ok());
        lines.find(|line| line.contains(text)).unwrap_or_else(|| panic!("{text:?} was not printed"))
    }

    /// Waits for the next line of the log that has this text.
    pub fn logged(&mut self, text: &str) -> String {
        let line = self.logged_within(PATIENCE, text);
        line.unwrap_or_else(|| panic!("{text:?} was not logged, but {:#?}", self.read))
    }

    /// The next line of the log that has this text, if one comes within this time.
    pub fn logged_within(&mut self, time: Duration, text: &str) -> Option<String> {
        let start = Instant::now();
        while let Ok(line) = self.log.recv_timeout(time.saturating_sub(start.elapsed())) {
            self.read.push(line.clone());
            if line.contains(text) {
                return Some(line);
            }
        }
        None
    }

    /// How many lines of the log have had this text until now.
    pub fn told(&mut self, text: &str) -> usize {
        self.read.extend(self.log.try_iter());
        self.read.iter().filter(|line| line.contains(text)).count()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits until it has ended; gives the rest of its log, too.
    pub fn ended(&mut self) -> (ExitStatus, Vec<String>) {
        // At its end the log ends. Only then is it waited for, so that it cannot be waited for in vain.
        let start = Instant::now();
        loop {
            match self.log.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
                Ok(line) => self.read.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end: {:#?}", self.read),
            }
        }
        (self.process.end(), std::mem::take(&mut self.read))
    }
}

impl Drop for Taut {
    fn drop(&mut self) {
        self.process.kill();
        if thread::panicking() {
            let lines: Vec<String> = self.read.drain(..).chain(self.log.iter()).collect();
            eprintln!("the log of the server:\n{}", lines.join("\n"));
        }
    }
}

/// A process that ends with the test.
pub struct Process {
    id: u32,
    /// std has no wait with a limit, so a thread waits, and says it here.
    ended: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
}

impl Process {
    pub fn new(mut child: Child) -> Self {
        let (tell, ended) = mpsc::channel();
        let id = child.id();
        thread::spawn(move || tell.send(child.wait().expect("an end")));
        Self { id, ended, status: None }
    }

    pub fn signal(&self, name: &str) {
        let id = self.id.to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id]).status().expect("a shell");
        assert!(sent.success(), "{name} was not sent");
    }

    pub fn is_running(&mut self) -> bool {
        self.status = self.status.or_else(|| self.ended.try_recv().ok());
        self.status.is_none()
    }

    /// Waits until it has ended.
    pub fn end(&mut self) -> ExitStatus {
        let wait = || self.ended.recv_timeout(PATIENCE).expect("it does not end");
        *self.status.get_or_insert_with(wait)
    }

    fn kill(&mut self) {
        if self.is_running() {
            self.signal("KILL");
            self.end();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks the program whether it would serve.
pub fn check(options: &[&str]) -> Output {
    let mut command = command(options);
    command.arg("--check");
    output(command)
}

/// Runs what is to end by itself.
pub fn output(mut command: Command) -> Output {
    let mut child = command.spawn().expect("the program");
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            bytes
        })
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = (read(stdout.map(|pipe| Box::new(pipe) as _)), read(stderr.map(|pipe| Box::new(pipe) as _)));
    let status = Process::new(child).end();
    Output { status, stdout: stdout.join().expect("read"), stderr: stderr.join().expect("read") }
}

/// The program, told to serve; nothing is told by variables.
pub fn command(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taut"));
    // Nothing of what it may be told by variables comes from outside of the test.
    command.env_clear().arg("serve").args(options);
    if !options.contains(&"--shards") {
        command.args(["--shards", "2"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A folder of a test's own, gone with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("taut-serve-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// The path of what may not be there.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Puts a file in the place of what was there, at once and whole, and gives its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        let new = Path::new(&self.0).join("new");
        fs::write(&new, text).expect("written");
        fs::rename(new, &path).expect("in its place");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
