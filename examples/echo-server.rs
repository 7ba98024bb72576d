//! Sends every message back, and ends gracefully: at Ctrl-C or SIGTERM it tells each client that it goes away, and waits
//! for their answers.
//!
//! ```sh
//! cargo run -p taut --example echo-server -- 127.0.0.1:9001
//! ```
//!
//! Without an address it listens on a port of the system's choosing. Either way it prints where.

use std::time::Duration;
use std::{env, io};

use taut::{Acceptor, Deflate, Error, Incoming, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    // Before anybody can know that the program runs, so that a signal never finds it unprepared.
    let asked_to_end = asked_to_end()?;
    let server = Server::bind(address).await?;
    println!("listening on ws://{}/", server.local_addr()?);

    server
        .acceptor(Acceptor::new().deflate(Deflate::default()))
        .on_failure(|failure| eprintln!("{failure}"))
        .serve(echo)
        .until(asked_to_end)
        .drain_timeout(Duration::from_secs(5))
        .await?;
    println!("ended");
    Ok(())
}

async fn echo(incoming: Incoming) -> Result<(), Error> {
    let mut socket = incoming.accept().await?;
    // `None` when the client closes the connection, and when the server drains.
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// Ready when the program is asked to end: by Ctrl-C at a terminal, or by SIGTERM, as service managers and containers do.
#[cfg(unix)]
fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ready when the program is asked to end.
#[cfg(not(unix))]
fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    Ok(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
}
