//! An echo server for those who have a bearer token; the others get 401.

use taut::{Error, Incoming, Server};

#[tokio::main]
async fn main() -> Result<(), Error> {
    Server::bind("127.0.0.1:9001").await?.on_failure(|failure| eprintln!("{failure}")).serve(echo).await
}

async fn echo(incoming: Incoming) -> Result<(), Error> {
    if incoming.bearer() != Some("t0ken") {
        return incoming.reject(401, "who are you?").await;
    }
    let mut socket = incoming.accept().await?;
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}
