//! What a server's connections allocate, by a counting allocator: nothing for each message of the natural loop, and
//! little while they are idle. `cargo test -p taut --test allocations -- --nocapture` prints the figures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use allocation_counter::measure;
use taut::{Incoming, Server};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// An echo server on a runtime of this thread alone, which runs when it is told to, and who has received how much.
struct Echo {
    runtime: Runtime,
    address: SocketAddr,
    received: Arc<AtomicUsize>,
}

impl Echo {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let received = Arc::new(AtomicUsize::new(0));
        let server = runtime.block_on(Server::bind("127.0.0.1:0")).unwrap();
        let address = server.local_addr().unwrap();
        let count = Arc::clone(&received);
        let serving = server.serve(move |incoming: Incoming| {
            let count = Arc::clone(&count);
            async move {
                let mut socket = incoming.accept().await?;
                while let Some(message) = socket.recv().await? {
                    count.fetch_add(1, Ordering::Relaxed);
                    socket.send(message).await?;
                }
                Ok::<(), taut::Error>(())
            }
        });
        runtime.spawn(serving.into_future());
        Self { runtime, address, received }
    }

    /// A client whose first message has been answered.
    fn client(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        self.send(&mut stream, &text(5));
        self.run(1);
        stream.read_exact(&mut [0; HEAD + 2 + 5]).unwrap();
        stream
    }

    fn send(&self, stream: &mut TcpStream, frames: &[u8]) {
        self.received.store(0, Ordering::Relaxed);
        stream.write_all(frames).unwrap();
    }

    /// Runs until so many messages have come and been answered.
    fn run(&self, messages: usize) {
        self.runtime.block_on(async {
            while self.received.load(Ordering::Relaxed) < messages {
                yield_now().await;
            }
            // The task that has received the last of them has written by now, and waits.
            yield_now().await;
        });
    }
}

/// A masked text frame, the mask being zeros.
fn text(length: usize) -> Vec<u8> {
    [&[0x81, 0x80 | length as u8, 0, 0, 0, 0], &vec![b'x'; length][..]].concat()
}

/// Bytes of the server's answer to the handshake.
const HEAD: usize = 129;

#[test]
fn the_natural_loop_allocates_nothing_for_each_message() {
    let echo = Echo::new();
    let mut client = echo.client();
    let mut rounds = |messages: usize| {
        let batch = text(125).repeat(messages);
        let mut round = || {
            echo.send(&mut client, &batch);
            let info = measure(|| echo.run(messages));
            client.read_exact(&mut vec![0; messages * 127]).unwrap();
            info.count_total
        };
        // The thread's buffers grow once.
        (0..10).for_each(|_| _ = round());
        (0..100).map(|_| round()).sum::<u64>()
    };
    let (few, many) = (rounds(1), rounds(16));
    println!("{few} allocations for 100 messages in as many reads, {many} for 1,600 in as many");
    // One for each run is the runtime's.
    assert!(few <= 101 && many <= 101, "{few} and {many}");
}

#[test]
fn an_idle_connection_is_small() {
    const CLIENTS: usize = 100;
    let echo = Echo::new();
    let mut clients: Vec<_> = (0..10).map(|_| echo.client()).collect();
    clients.reserve(CLIENTS);
    let info = measure(|| (0..CLIENTS).for_each(|_| clients.push(echo.client())));
    let each = info.bytes_current / i64::try_from(CLIENTS).expect("few");
    println!("{each} bytes for each idle connection");
    assert!(each <= MOST, "{each}");
}

/// The task, what tokio keeps of the socket, the connection, its timer, and the handler's future.
const MOST: i64 = 1100;
