//! Connects by TLS with a bearer token, says hello, prints the texts that come.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Error, Message};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let uri = "wss://api.example/v1".parse()?;
    let request = ClientRequestBuilder::new(uri).with_header("Authorization", "Bearer t0ken");
    let (mut socket, _) = connect_async(request).await?;
    socket.send("hello".into()).await?;
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message? {
            println!("{text}");
        }
    }
    Ok(())
}
