//! Connects by TLS with a bearer token, says hello, prints the texts that come.

use taut::{Client, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut socket = Client::new("wss://api.example/v1").bearer("t0ken").connect().await?;
    socket.send("hello").await?;
    while let Some(message) = socket.recv().await? {
        if let Some(text) = message.as_text() {
            println!("{text}");
        }
    }
    Ok(())
}
