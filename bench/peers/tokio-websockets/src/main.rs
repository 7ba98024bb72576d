//! An echo server over tokio-websockets, set up as its own echo example: tokio's current-thread runtime, and each
//! connection's task outside tokio's cooperative budget.
//!
//! Without an argument it is the loop of that example: receive, send, repeat; every `send` flushes, so every message is
//! a write of its own. With `feed` the messages that are there already are taken together, and their echoes leave in
//! one vectored write. Forwarding the stream into the sink would not do that here: the stream flushes whatever is
//! queued each time it is asked for a message.

use std::io::{self, ErrorKind};

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::unconstrained;
use tokio_websockets::{Config, Error, Message, ServerBuilder};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let feed = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("feed") => true,
        Some(other) => {
            eprintln!("`{other}` is no way to echo; give `feed` or nothing");
            std::process::exit(2);
        }
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(unconstrained(async move {
            let outcome = if feed { echo_feeding(stream).await } else { echo(stream).await };
            match outcome {
                Ok(()) => {}
                // Clients that just go away are everyday life.
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                }
                Err(error) => eprintln!("connection: {error}"),
            }
        }));
    }
}

async fn echo(stream: TcpStream) -> Result<(), Error> {
    let (_, mut socket) = ServerBuilder::new().accept(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if is_data(&message) {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn echo_feeding(stream: TcpStream) -> Result<(), Error> {
    let config = Config::default().flush_threshold(FLUSH_THRESHOLD);
    let (_, mut socket) = ServerBuilder::new().config(config).accept(stream).await?;
    let mut batch = Vec::new();
    while let Some(message) = socket.next().await {
        batch.push(message?);
        while batch.len() < BATCH
            && let Some(Some(message)) = socket.next().now_or_never()
        {
            batch.push(message?);
        }
        // Its close frame is queued when the peer's is taken, and nothing may follow it (RFC 6455 §5.5.1). A client
        // that awaits its echoes before it closes, as the load does, misses nothing.
        if batch.iter().any(Message::is_close) {
            batch.clear();
        }
        for message in batch.drain(..).filter(is_data) {
            socket.feed(message).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}

/// Header and payload are one slice each, and it passes 64 slices to a write.
const BATCH: usize = 32;

/// Bytes. The default of 8 KiB would give each message of 16 KiB a write of its own again.
const FLUSH_THRESHOLD: usize = 64 * 1024;
