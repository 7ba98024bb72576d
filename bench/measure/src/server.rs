//! A server under test as a process: started on its core, watched, ended.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::Outcome;
use crate::connect::PATIENCE;
use crate::peers::{Address, Peer};

/// A running server. Dropping it ends the process and waits until it is gone.
#[derive(Debug)]
pub struct Server {
    child: Child,
    name: &'static str,
    /// Where it listens; in several places if its process starts several nodes. Clients are spread over them.
    pub addresses: Vec<SocketAddr>,
    /// The Unix socket where it listens, if it has no address.
    pub socket: Option<PathBuf>,
    /// The processes that hold the clients' connections: whose memory counts, and that of those they have started.
    holders: Vec<String>,
}

impl Server {
    /// Starts the server on its core and waits until it says where it listens.
    pub fn start(peer: &Peer, core: usize) -> Outcome<Self> {
        // The child inherits the core from the thread that starts it, so that not even its first thread, nor any that
        // it starts, ever runs elsewhere. `setpriv` gives way to the server (same process id) and has the kernel end it
        // should this program be killed.
        let own_cores = sched_getaffinity(None)?;
        let port = match peer.address {
            Address::Printed => None,
            Address::Told => Some(free_port()?),
        };
        pin_this_thread(core)?;
        let started = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .args(peer.command)
            .envs(port.map(|port| ("PORT", port.to_string())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        sched_setaffinity(None, &own_cores)?;
        let child = started.map_err(|error| format!("{}: cannot start `setpriv` (util-linux): {error}", peer.name))?;

        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
        let holders = vec![child.id().to_string()];
        let mut server = Self { child, name: peer.name, addresses: vec![address], socket: None, holders };
        let lines = server.lines()?;
        if port.is_some() {
            server.await_listening()?;
        } else {
            let line = lines.recv_timeout(PATIENCE).map_err(|_| {
                format!("{}: it ended, or was silent for {PATIENCE:?}, before it said where it listens", peer.name)
            })?;
            let place = Place::read(&line).ok_or_else(|| {
                format!("{}: its first line should be `listening on ADDRESS[, ADDRESS]`, but is {line:?}", peer.name)
            })?;
            server.addresses = place.addresses;
            server.socket = place.socket;
            if !place.holders.is_empty() {
                server.holders = place.holders;
            }
        }
        Ok(server)
    }

    /// What it prints.
    fn lines(&mut self) -> Outcome<mpsc::Receiver<String>> {
        let stdout = self.child.stdout.take().ok_or("the server has no stdout")?;
        let (sender, receiver) = mpsc::channel();
        // It reads on to the end, so that a talkative server never blocks on a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody waits for any line but the first.
                let _ = sender.send(line);
            }
        });
        Ok(receiver)
    }

    /// Tries to connect until it can: nothing tells when another process begins to listen.
    fn await_listening(&self) -> Outcome<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = TcpStream::connect(self.address()) {
            if self.has_ended() || Instant::now() > deadline {
                return Err(format!("{}: nothing listens on {}: {error}", self.name, self.address()).into());
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Where it listens, or its first node does.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Time that all threads of its process, and of those that it has started, have been on a core, as the scheduler counts it, in
    /// nanoseconds.
    pub fn processor_time(&self) -> Outcome<u64> {
        tree(&self.child.id().to_string()).iter().map(|process| processor_time_of(process)).sum()
    }

    /// Its memory as the kernel counts it: of all its processes, or of those that hold connections if it has said which.
    pub fn memory(&self) -> Outcome<Memory> {
        let mut sum = Memory { resident: 0, proportional: 0, anonymous: 0 };
        for process in self.holders.iter().flat_map(|holder| tree(holder)) {
            let path = format!("/proc/{process}/smaps_rollup");
            let text =
                fs::read_to_string(&path).map_err(|error| format!("{}: cannot read {path}: {error}", self.name))?;
            let memory = Memory::read(&text).ok_or_else(|| format!("{path} has no line for Rss, Pss and Anonymous"))?;
            sum.resident += memory.resident;
            sum.proportional += memory.proportional;
            sum.anonymous += memory.anonymous;
        }
        Ok(sum)
    }

    /// Whether its process is gone: then that is what explains an error, whatever the error says.
    pub fn has_ended(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())
            .and_then(|process| poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&at_once)))
            .is_ok_and(|ended| ended > 0)
    }

    /// Asks it to end; `false` says that it has not within the time.
    fn ends_within(&self, signal: Signal, patience: Duration) -> rustix::io::Result<bool> {
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        pidfd_send_signal(&process, signal)?;
        let timeout = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        // A process descriptor becomes readable when the process has ended.
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout))?;
        Ok(ended > 0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        if !self.ends_within(Signal::TERM, PATIENCE).unwrap_or(false) {
            eprintln!("!!! {} did not end within {PATIENCE:?} of SIGTERM; it is killed !!!", self.name);
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// What a process holds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Pages in memory.
    pub resident: u64,
    /// The same, where a page shared by n processes counts as its n-th part.
    pub proportional: u64,
    /// Pages of no file: heap and stacks.
    pub anonymous: u64,
}

impl Memory {
    fn read(smaps_rollup: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = smaps_rollup.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        Some(Self { resident: bytes("Rss:")?, proportional: bytes("Pss:")?, anonymous: bytes("Anonymous:")? })
    }
}

/// Time that this program's only busy thread has been on a core, in nanoseconds.
pub fn own_processor_time() -> Outcome<u64> {
    processor_time_of("self")
}

/// A process and those that it has started.
fn tree(root: &str) -> Vec<String> {
    let mut processes = vec![root.to_owned()];
    let mut next = 0;
    while let Some(process) = processes.get(next) {
        // Any of its threads may have started some; a process that is gone has none.
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<String> = lists.flat_map(|list| words(&list)).collect();
        processes.extend(children);
        next += 1;
    }
    processes
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn processor_time_of(process: &str) -> Outcome<u64> {
    let tasks = format!("/proc/{process}/task");
    let mut sum = 0;
    for task in fs::read_dir(&tasks).map_err(|error| format!("{tasks}: the process is gone? {error}"))? {
        // A thread that ends between the listing and the reading takes its time with it.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let nanoseconds = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
        sum += nanoseconds.ok_or_else(|| format!("{tasks}/*/schedstat: this kernel does not count there"))?;
    }
    Ok(sum)
}

/// How a core has spent its time since the machine started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreTime {
    /// Neither idle nor taken away.
    pub busy: u64,
    /// Taken away by the host of a virtual machine.
    pub stolen: u64,
    /// All of it.
    pub total: u64,
}

impl CoreTime {
    /// Of one core.
    pub fn of(core: usize) -> Outcome<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        Ok(Self::read(&text, core).ok_or_else(|| format!("/proc/stat has no core {core}"))?)
    }

    fn read(stat: &str, core: usize) -> Option<Self> {
        let name = format!("cpu{core} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
        let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        // proc_stat(5): user nice system idle iowait irq softirq steal; guest time is contained in user.
        let &[user, nice, system, idle, waiting, irq, softirq, stolen, ..] = fields.as_slice() else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, stolen, total: busy + idle + waiting + stolen })
    }
}

/// Binds the calling thread, and what it starts, to one core.
pub fn pin_this_thread(core: usize) -> Outcome<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| {
        format!("cannot use core {core}: {error}; choose others by --server-core and --load-core").into()
    })
}

/// Lets this program and the servers it starts have as many connections as are measured.
pub fn raise_open_file_limit(connections: usize) -> Outcome<()> {
    let needed = connections as u64 + SPARE_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    let wanted = Rlimit { current: Some(needed), maximum };
    setrlimit(Resource::Nofile, wanted).map_err(|error| {
        format!(
            "{needed} open files are needed, and the hard limit is {}: {error}; raise it (as root: \
             prlimit --pid $$ --nofile={needed}) or measure fewer connections (--idle)",
            limit.maximum.map_or_else(|| "none".to_owned(), |maximum| maximum.to_string()),
        )
        .into()
    })
}

/// Files that a server or this program may hold beside its connections.
const SPARE_FILES: u64 = 500;

/// A port that was free a moment ago: for servers that cannot say which one the system has chosen.
fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a server says of itself in its first line: `listening on ADDRESS[, ADDRESS] [held by PROCESS[, PROCESS]]`, each
/// address with or without its scheme; or `unix:PATH` as the only one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    addresses: Vec<SocketAddr>,
    socket: Option<PathBuf>,
    holders: Vec<String>,
}

impl Place {
    fn read(line: &str) -> Option<Self> {
        let place = line.trim().strip_prefix("listening on ")?;
        let (place, holders) = place.split_once(" held by ").unwrap_or((place, ""));
        let holders = words(&holders.replace(',', " "));
        if let Some(path) = place.strip_prefix("unix:") {
            return Some(Self { socket: Some(path.into()), holders, ..Self::default() });
        }
        let addresses = place.split(", ").map(address_in).collect::<Option<_>>()?;
        Some(Self { addresses, socket: None, holders })
    }
}

fn address_in(text: &str) -> Option<SocketAddr> {
    let address = ["ws://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    address.trim_end_matches('/').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_with_and_without_scheme() {
        let addresses_in = |line| Place::read(line).map(|place| place.addresses);
        let expected = Some(vec![([127, 0, 0, 1], 4711).into()]);
        assert_eq!(addresses_in("listening on 127.0.0.1:4711"), expected);
        assert_eq!(addresses_in("listening on ws://127.0.0.1:4711/\n"), expected);
        assert_eq!(addresses_in("listening on http://127.0.0.1:4711"), expected);
        assert_eq!(addresses_in("listening on localhost"), None);
        assert_eq!(addresses_in("ready"), None);
    }

    #[test]
    fn several_nodes_listen_in_several_places() {
        let place = Place::read("listening on 127.0.0.1:1, http://127.0.0.1:2").unwrap();
        assert_eq!(place.addresses.iter().map(SocketAddr::port).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(Place::read("listening on 127.0.0.1:1, there"), None);
    }

    #[test]
    fn a_stack_says_which_of_its_processes_hold_connections() {
        let place = Place::read("listening on 127.0.0.1:1 held by 12, 345\n").unwrap();
        assert_eq!((place.addresses.len(), place.holders), (1, vec!["12".to_owned(), "345".to_owned()]));
        let place = Place::read("listening on unix:/tmp/fpm.sock").unwrap();
        assert_eq!(place, Place { socket: Some("/tmp/fpm.sock".into()), ..Place::default() });
    }

    #[test]
    fn a_process_is_counted_with_those_that_it_has_started() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let own = tree(&std::process::id().to_string());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(own.contains(&child.id().to_string()), "{own:?}");
    }

    #[test]
    fn a_core_is_busy_when_it_is_neither_idle_nor_stolen() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 40 50 6 7 8 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\n";
        let expected = CoreTime { busy: 19, stolen: 8, total: 117 };
        assert_eq!(CoreTime::read(stat, 0), Some(expected));
        assert_eq!(CoreTime::read(stat, 1), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "00 [rollup]\nRss:   1688 kB\nPss:    391 kB\nPss_Anon: 9 kB\nAnonymous:   116 kB\n";
        let expected = Memory { resident: 1688 * 1024, proportional: 391 * 1024, anonymous: 116 * 1024 };
        assert_eq!(Memory::read(text), Some(expected));
        assert_eq!(Memory::read("Rss: 1 kB\n"), None);
    }

    #[test]
    fn the_scheduler_counts_this_thread() {
        let before = own_processor_time().unwrap();
        let mut sum = 0u64;
        while own_processor_time().unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(own_processor_time().unwrap() > before);
    }
}
