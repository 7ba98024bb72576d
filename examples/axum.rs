//! A web application with a plain page and a WebSocket that only those with a token may open. It listens on a port of
//! the system's choosing and prints its address.
//!
//! ```sh
//! cargo run -p taut --features axum --example axum
//! ```

use std::time::Duration;

use axum::response::Response;
use axum::routing::{any, get};
use axum::{Extension, Router};
use taut::axum::{Refused, Shutdown, Upgrade};
use taut::{Acceptor, Refusal, WebSocket};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let shutdown = Shutdown::new();
    let app = Router::new()
        .route("/", get("Open a WebSocket at /echo, with the bearer token t0ken.\n"))
        .route("/echo", any(echo))
        .layer(Extension(Acceptor::new().subprotocols(["echo"])))
        .layer(Extension(shutdown.clone()));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    let stopped = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
    shutdown.drain(Duration::from_secs(10)).await;
    Ok(())
}

async fn echo(upgrade: Upgrade) -> Result<Response, Refused> {
    // A real application looks the token up. Browsers send it as the subprotocol `bearer.t0ken`.
    let user = match upgrade.bearer() {
        Some("t0ken") => "Ada",
        _ => return Err(Refusal::unauthorized("a valid bearer token is needed").into()),
    };
    let upgrade = upgrade.on_failure(|failure| eprintln!("{failure}"));
    Ok(upgrade.on_upgrade(move |socket| talk(socket, user)))
}

async fn talk(mut socket: WebSocket, user: &str) -> Result<(), taut::Error> {
    socket.send(format!("hello, {user}")).await?;
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}
