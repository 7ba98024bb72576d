//! An echo within an axum application, for those who have a bearer token; the others get 401.

use axum::Router;
use axum::response::Response;
use axum::routing::any;
use taut::axum::Upgrade;
use taut::{Error, Refusal, WebSocket};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new().route("/echo", any(open));
    axum::serve(TcpListener::bind("127.0.0.1:9001").await?, app).await
}

async fn open(upgrade: Upgrade) -> Result<Response, Refusal> {
    if upgrade.bearer() != Some("t0ken") {
        return Err(Refusal::unauthorized("who are you?"));
    }
    Ok(upgrade.on_failure(|failure| eprintln!("{failure}")).on_upgrade(echo))
}

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}
