//! An echo within an axum application, for those who have a bearer token; the others get 401.

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use fastwebsockets::upgrade::{IncomingUpgrade, UpgradeFut};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new().route("/echo", any(open));
    axum::serve(TcpListener::bind("127.0.0.1:9001").await?, app).await
}

async fn open(headers: HeaderMap, upgrade: IncomingUpgrade) -> Result<Response, (StatusCode, &'static str)> {
    let token = headers.get("Authorization").and_then(|value| value.to_str().ok());
    if token != Some("Bearer t0ken") {
        return Err((StatusCode::UNAUTHORIZED, "who are you?"));
    }
    let Ok((response, upgrade)) = upgrade.upgrade() else { return Err((StatusCode::BAD_REQUEST, "no WebSocket")) };
    tokio::spawn(async move {
        if let Err(error) = echo(upgrade).await {
            eprintln!("{error}");
        }
    });
    Ok(response.into_response())
}

async fn echo(upgrade: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgrade.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}
