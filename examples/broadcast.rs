//! One room over a broadcast channel of tokio's: what one client says, all hear. Each client's task waits for its socket
//! and for the channel at once. A client that reads too slowly misses lines, is told how many, and holds nobody up.
//!
//! ```sh
//! cargo run -p taut --example broadcast -- 127.0.0.1:9001
//! cargo run -p taut --example echo-client -- ws://127.0.0.1:9001/
//! ```

use std::env;
use std::sync::Arc;

use taut::{CloseCode, Error, Incoming, Server};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Lines that the channel keeps for those who are behind. Who is further behind misses the oldest.
const KEPT: usize = 64;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = Server::bind(address).await?;
    println!("listening on ws://{}/", server.local_addr()?);

    let room = broadcast::Sender::new(KEPT);
    server
        .on_failure(|failure| eprintln!("{failure}"))
        .serve(move |incoming| join(incoming, room.clone()))
        .until(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
        .await
}

async fn join(incoming: Incoming, room: broadcast::Sender<Arc<str>>) -> Result<(), Error> {
    // Before the client can know that it is connected, so that it misses nothing that is said from then on.
    let mut lines = room.subscribe();
    let mut socket = incoming.accept().await?;
    loop {
        // Whichever of the two is dropped loses nothing.
        tokio::select! {
            message = socket.recv() => {
                let Some(message) = message? else { return Ok(()) };
                match message.into_text() {
                    // It cannot fail: this task listens as well.
                    Ok(line) => drop(room.send(line.into())),
                    Err(_) => return socket.close(CloseCode::UNSUPPORTED).await,
                }
            }
            line = lines.recv() => match line {
                // Waits while 1 MiB has not been read by this client. Meanwhile the channel goes on without it.
                Ok(line) => socket.send(&line).await?,
                Err(RecvError::Lagged(missed)) => socket.send(format!("({missed} lines missed)")).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}
