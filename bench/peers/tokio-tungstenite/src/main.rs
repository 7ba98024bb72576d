//! An echo server over tokio-tungstenite with its default configuration, on tokio's current-thread runtime.
//!
//! Without an argument it is the loop that people write: receive, send, repeat; every `send` flushes, so every message
//! is a write of its own. With `forward` it is the shape of the library's own echo example: the stream is forwarded
//! into the sink, which flushes only when there is nothing left to read.

use std::io;

use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let forward = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("forward") => true,
        Some(other) => {
            eprintln!("`{other}` is no way to echo; give `forward` or nothing");
            std::process::exit(2);
        }
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let outcome = if forward { echo_forwarding(stream).await } else { echo(stream).await };
            match outcome {
                // Clients that just go away are everyday life.
                Ok(())
                | Err(Error::ConnectionClosed | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {}
                Err(error) => eprintln!("connection: {error}"),
            }
        });
    }
}

async fn echo(stream: TcpStream) -> Result<(), Error> {
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn echo_forwarding(stream: TcpStream) -> Result<(), Error> {
    let (sink, stream) = accept_async(stream).await?.split();
    stream.try_filter(|message| future::ready(message.is_text() || message.is_binary())).forward(sink).await
}
