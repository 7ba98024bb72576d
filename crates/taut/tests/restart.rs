//! A thousand clients of a server that is killed and started again: all come back, and not all at once.
//!
//! The server is a process of its own, this program again, so that its end is a real one and each of the two stays
//! below 1,024 file descriptors.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use taut::reconnect::Event;
use taut::{Backoff, Client, Incoming, Server};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

const CLIENTS: usize = 1000;

/// Set for the server's process: where to listen.
const ADDRESS: &str = "TAUT_TEST_ADDRESS";

#[test]
fn a_thousand_clients_come_back_spread_over_five_seconds() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let spread = runtime.block_on(restart(Backoff::default()));
    let most = spread.print("by default");
    // Expected are 2 % of the clients in each tenth of a second. A machine that is busy bunches them somewhat; without
    // a window it would be all of them.
    assert!(most <= CLIENTS * 15 / 100, "{most} clients came back within 100 ms");
    let last = spread.after[CLIENTS - 1];
    assert!(last > Duration::from_secs(4) && last < Duration::from_secs(9), "the last came back after {last:?}");

    // For comparison: what one gives up who wants to be back sooner.
    let mut eager = Backoff::default();
    eager.eager_first = Some(Duration::from_millis(250));
    runtime.block_on(restart(eager)).print("eager_first of 250 ms");
}

#[test]
#[ignore = "another test starts it, in a process of its own"]
fn the_server() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::bind(address).await.unwrap();
        println!("\n{LISTENING}{}", server.local_addr().unwrap());
        let serving = server.serve(|incoming: Incoming| async move {
            let mut socket = incoming.accept().await?;
            while let Some(message) = socket.recv().await? {
                socket.send(message).await?;
            }
            Ok::<(), taut::Error>(())
        });
        serving.await.unwrap();
    });
}

const LISTENING: &str = "listening on ";

/// When the clients were back after the server was killed, in order.
struct Spread {
    after: Vec<Duration>,
}

impl Spread {
    /// Prints the figures; the most clients within one tenth of a second.
    fn print(&self, what: &str) -> usize {
        let bucket = |after: &Duration| after.as_millis() / 100;
        let buckets = self.after.chunk_by(|one, other| bucket(one) == bucket(other));
        let most = buckets.map(<[Duration]>::len).max().unwrap_or_default();
        let [first, median, last] = [0, CLIENTS / 2, CLIENTS - 1].map(|index| self.after[index].as_secs_f32());
        println!("{what}: first {first:.2} s, median {median:.2} s, last {last:.2} s; at most {most} within 100 ms");
        most
    }
}

async fn restart(backoff: Backoff) -> Spread {
    let (server, address) = Process::start("127.0.0.1:0");
    let (opened, mut openings) = unbounded_channel();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let opened = opened.clone();
        let mut client = Client::new(&format!("ws://{address}/"))
            .reconnecting(backoff, |mut socket| async move {
                // Back is who has an answer.
                socket.send("subscribe").await?;
                socket.recv().await?.is_some().then_some(socket).ok_or_else(|| taut::Error::other("closed"))
            })
            .on_event(move |event| {
                if let Event::Open { .. } = event {
                    let _ = opened.send(Instant::now());
                }
            });
        clients.spawn(async move { client.recv().await });
    }
    all(&mut openings).await;
    let killed = Instant::now();
    drop(server);
    let (_server, again) = Process::start(&address.to_string());
    assert_eq!(again, address);
    let mut after: Vec<_> = all(&mut openings).await.iter().map(|opened| opened.duration_since(killed)).collect();
    after.sort_unstable();
    assert!(clients.try_join_next().is_none(), "none has given up");
    Spread { after }
}

/// Waits until every client has opened a connection.
async fn all(openings: &mut UnboundedReceiver<Instant>) -> Vec<Instant> {
    let mut all = Vec::new();
    while all.len() < CLIENTS {
        let opened = timeout(Duration::from_secs(30), openings.recv()).await;
        all.push(opened.unwrap_or_else(|_| panic!("only {} clients have connected", all.len())).unwrap());
    }
    all
}

/// The server's process, which ends with it: at once, and its connections with it.
struct Process(Child);

impl Process {
    fn start(address: &str) -> (Self, SocketAddr) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["the_server", "--exact", "--ignored", "--nocapture"]).env(ADDRESS, address);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let process = Self(child);
        let mut lines = output.lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix(LISTENING)?.parse().ok());
        (process, address.expect("the server listens"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
