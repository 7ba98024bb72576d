//! An echo server over yawc, upgraded by hyper as its documentation shows, on tokio's current-thread runtime. UTF-8 is
//! checked, which this library leaves to an option.
//!
//! Without an argument it is the loop of its documentation with default buffers: receive, send, repeat; every `send`
//! flushes, so every message is a write of its own. With `batched` it has what its own measurements name as tuned: a
//! read buffer of 128 KiB, a write boundary of 64 KiB, and a flush after up to 32 messages that are there already.

use std::future;
use std::io::{self, ErrorKind};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use yawc::{OpCode, Options, UpgradeFut, WebSocket, WebSocketError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let batched = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("batched") => true,
        Some(other) => {
            eprintln!("`{other}` is no way to echo; give `batched` or nothing");
            std::process::exit(2);
        }
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(|mut request| future::ready(upgrade(&mut request, batched)));
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            if let Err(error) = serving.await {
                eprintln!("handshake: {error}");
            }
        });
    }
}

fn upgrade(request: &mut Request<Incoming>, batched: bool) -> yawc::Result<Response<Empty<Bytes>>> {
    let mut options = Options::default().with_utf8().without_compression();
    if batched {
        options = options.with_read_buffer_capacity(READ_BUFFER).with_backpressure_boundary(WRITE_BOUNDARY);
    }
    let (response, upgraded) = WebSocket::upgrade_with_options(request, options)?;
    tokio::spawn(async move {
        let outcome = if batched { echo_in_batches(upgraded).await } else { echo(upgraded).await };
        match outcome {
            // Clients that just go away are everyday life.
            Ok(()) | Err(WebSocketError::ConnectionClosed) => {}
            Err(WebSocketError::IoError(error))
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            Err(error) => eprintln!("connection: {error}"),
        }
    });
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> yawc::Result<()> {
    let mut socket = upgraded.await?;
    // The answer to a close frame leaves when the next one is asked for, and that ends the loop as an error.
    loop {
        let frame = socket.next_frame().await?;
        if is_data(frame.opcode()) {
            socket.send(frame).await?;
        }
    }
}

async fn echo_in_batches(upgraded: UpgradeFut) -> yawc::Result<()> {
    let mut socket = upgraded.await?;
    loop {
        let mut next = Some(socket.next_frame().await);
        let mut taken = 0;
        while let Some(frame) = next {
            let frame = frame?;
            if is_data(frame.opcode()) {
                socket.feed(frame).await?;
            }
            taken += 1;
            next = if taken < BATCH { socket.next_frame().now_or_never() } else { None };
        }
        socket.flush().await?;
    }
}

fn is_data(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Text | OpCode::Binary)
}

/// Bytes per connection.
const READ_BUFFER: usize = 128 * 1024;

/// Bytes; with more in its buffer it writes before it takes another message.
const WRITE_BOUNDARY: usize = 64 * 1024;

const BATCH: usize = 32;
