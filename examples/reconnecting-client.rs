//! Stays connected to a WebSocket server: sends each line of the standard input, prints what comes, and connects again
//! whenever the connection is lost.
//!
//! ```sh
//! cargo run --release -- echo &
//! cargo run -p taut --example reconnecting-client -- ws://127.0.0.1:9001/
//! ```
//!
//! Then stop the server and start it again.

use taut::{Backoff, Client, CloseCode};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(url) = std::env::args().nth(1) else {
        return Err("which server? Give its URL, such as ws://127.0.0.1:9001/".into());
    };
    // What the server must be told on each new connection goes into the hook.
    let mut feed = Client::new(&url)
        .reconnecting(Backoff::default(), |mut socket| async move {
            socket.send("subscribe").await?;
            Ok(socket)
        })
        .on_event(|event| eprintln!("{event}"));

    let mut lines = BufReader::new(stdin()).lines();
    loop {
        // Whichever of the two is dropped loses nothing, not even an attempt to connect that has begun.
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => feed.send(line).await?,
                None => break,
            },
            // An error only when trying again cannot help.
            message = feed.recv() => println!("{}", message?.as_text().unwrap_or("(bytes)")),
        }
    }
    feed.close(CloseCode::NORMAL).await?;
    Ok(())
}
