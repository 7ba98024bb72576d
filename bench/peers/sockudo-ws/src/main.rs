//! An echo server over sockudo-ws with its default configuration, which has a heartbeat, on tokio's current-thread
//! runtime; its clock is calibrated first and no stream is boxed, as its documentation advises for that runtime.
//!
//! Without an argument it is the loop of its first example: receive, send, repeat; every `send` flushes, so every
//! message is a write of its own. With `feed` it is the echo loop that its documentation names for batching: replies
//! are queued, and written when nothing is left of what was read.

use std::io::{self, ErrorKind};

use futures_util::{SinkExt, StreamExt};
use sockudo_ws::server::WebSocketServer;
use sockudo_ws::{Config, Error, Http1, Message, WebSocketStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;

fn main() -> io::Result<()> {
    let feed = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("feed") => true,
        Some(other) => {
            eprintln!("`{other}` is no way to echo; give `feed` or nothing");
            std::process::exit(2);
        }
    };
    sockudo_ws::init_clock();
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(feed))
}

async fn serve(feed: bool) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("listening on {}", listener.local_addr()?);
    let server = WebSocketServer::<Http1>::new(Config::default());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = server.clone();
        tokio::spawn(async move {
            let outcome = match server.accept_raw(stream).await {
                Ok((socket, _)) if feed => echo_feeding(socket).await,
                Ok((socket, _)) => echo(socket).await,
                Err(error) => Err(error),
            };
            match outcome {
                // Clients that just go away are everyday life.
                Ok(()) | Err(Error::ConnectionClosed | Error::ConnectionReset) => {}
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                }
                Err(error) => eprintln!("connection: {error}"),
            }
        });
    }
}

async fn echo(mut socket: WebSocketStream<TcpStream>) -> sockudo_ws::Result<()> {
    while let Some(message) = socket.next().await {
        match message? {
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await?,
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
    Ok(())
}

async fn echo_feeding(mut socket: WebSocketStream<TcpStream>) -> sockudo_ws::Result<()> {
    while let Some(message) = socket.next().await {
        match message? {
            message @ (Message::Text(_) | Message::Binary(_)) => socket.feed(message).await?,
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
    Ok(())
}
