//! An echo within an axum application, for those who have a bearer token; the others get 401.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::any;
use axum::{Error, Router};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new().route("/echo", any(open));
    axum::serve(TcpListener::bind("127.0.0.1:9001").await?, app).await
}

async fn open(headers: HeaderMap, upgrade: WebSocketUpgrade) -> Result<Response, (StatusCode, &'static str)> {
    let token = headers.get("Authorization").and_then(|value| value.to_str().ok());
    if token != Some("Bearer t0ken") {
        return Err((StatusCode::UNAUTHORIZED, "who are you?"));
    }
    Ok(upgrade.on_upgrade(|socket| async {
        if let Err(error) = echo(socket).await {
            eprintln!("{error}");
        }
    }))
}

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        let message = message?;
        if let Message::Text(_) | Message::Binary(_) = message {
            socket.send(message).await?;
        }
    }
    Ok(())
}
