//! Subscribes to a feed and prints it, for ever: notices a server that is gone, and comes back with backoff and jitter.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};

type Problem = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Problem> {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let Err(problem) = feed().await;
        if let Some(Error::Http(response)) = problem.downcast_ref()
            && response.status().is_client_error()
        {
            return Err(problem);
        }
        if began.elapsed() > Duration::from_secs(5) {
            failures = 0;
        }
        let window = 500 << failures.min(6);
        failures += 1;
        let delay = Duration::from_millis(100 + rand::random_range(0..=window));
        eprintln!("{problem}; again in {delay:?}");
        sleep(delay).await;
    }
}

async fn feed() -> Result<std::convert::Infallible, Problem> {
    let connecting = connect_async("wss://api.example/feed");
    let (mut socket, _) = timeout(Duration::from_secs(10), connecting).await??;
    socket.send("subscribe".into()).await?;
    let mut is_pinged = false;
    loop {
        match timeout(Duration::from_secs(20), socket.next()).await {
            Ok(Some(message)) => {
                is_pinged = false;
                if let Message::Text(text) = message? {
                    println!("{text}");
                }
            }
            Ok(None) => return Err("the server closed the connection".into()),
            Err(_) if is_pinged => return Err("the server does not answer".into()),
            Err(_) => {
                socket.send(Message::Ping(Vec::new().into())).await?;
                is_pinged = true;
            }
        }
    }
}
