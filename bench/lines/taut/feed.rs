//! Subscribes to a feed and prints it, for ever: notices a server that is gone, and comes back with backoff and jitter.

use taut::{Backoff, Client, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut feed = Client::new("wss://api.example/feed")
        .reconnecting(Backoff::default(), |mut socket| async move {
            socket.send("subscribe").await?;
            Ok(socket)
        })
        .on_event(|event| eprintln!("{event}"));
    loop {
        if let Some(text) = feed.recv().await?.as_text() {
            println!("{text}");
        }
    }
}
