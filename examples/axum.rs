//! A web application with a plain page and a chat that only those with a token may join. At Ctrl-C or SIGTERM it closes every
//! connection with code 1001 and waits for the handlers.
//!
//! ```sh
//! cargo run -p taut --features axum --example axum
//! ```
//!
//! It listens on a port of the system's choosing and prints its address.
//!
//! - `/chat` is for those who send `Authorization: Bearer ada-token`, or from a page, which cannot set headers,
//!   `new WebSocket(url, ['chat.v1', 'bearer.ada-token'])`. What one of them says, all hear. Messages are short.
//! - `/upload` is for the same, with messages up to 64 MiB.
//! - Everybody else gets 401 with JSON that says why.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Extension, Router};
use taut::axum::{Shutdown, Upgrade};
use taut::{Error, Refusal, Request, Settings, WebSocket};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// What all handlers share; clones are handles.
#[derive(Clone)]
struct App {
    /// A real application asks its database. Looked up by a hash with a random key, so that the time it takes tells nothing
    /// about how much of a guess was right.
    users: HashMap<&'static str, &'static str>,
    lines: broadcast::Sender<String>,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    // Before anybody can know that the program runs, so that a signal never finds it unprepared.
    let asked_to_end = asked_to_end()?;
    let state =
        App { users: HashMap::from([("ada-token", "Ada"), ("bob-token", "Bob")]), lines: broadcast::Sender::new(256) };
    let shutdown = Shutdown::new();
    let app = Router::new()
        .route("/", get("Join the chat at /chat, with a bearer token.\n"))
        .route("/chat", any(chat))
        .route("/upload", any(upload))
        .with_state(state)
        .layer(Extension(shutdown.clone()));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}/", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(asked_to_end).await?;
    // To axum, a connection that has become a WebSocket is over.
    shutdown.drain(Duration::from_secs(5)).await;
    println!("ended");
    Ok(())
}

/// Who asks, or the response that tells a stranger why not.
fn authenticate(request: &Request, app: &App) -> Result<&'static str, Refusal> {
    let refused = |why| Refusal::json(401, format!(r#"{{"error":"{why}"}}"#)).challenge(r#"Bearer realm="chat""#);
    let token = request.bearer().ok_or_else(|| refused("no token"))?;
    app.users.get(token).copied().ok_or_else(|| refused("token not valid"))
}

async fn chat(State(app): State<App>, upgrade: Upgrade) -> Result<Response, Refusal> {
    let user = authenticate(&upgrade, &app)?;
    let mut settings = Settings::server();
    settings.limits.message = 1 << 10;
    let upgrade =
        upgrade.settings(settings).select_subprotocol(&["chat.v1"]).on_failure(|failure| eprintln!("{failure}"));
    Ok(upgrade.on_upgrade(move |socket| talk(socket, user, app.lines)))
}

async fn talk(mut socket: WebSocket, user: &str, lines: broadcast::Sender<String>) -> Result<(), Error> {
    let mut heard = lines.subscribe();
    socket.send(format!("hello, {user}")).await?;
    loop {
        // Whichever of the two is dropped loses nothing: `recv` of both can be cancelled.
        tokio::select! {
            message = socket.recv() => match message? {
                // Sending fails if nobody listens, and this task does.
                Some(message) => drop(lines.send(format!("{user}: {message}"))),
                None => return Ok(()),
            },
            line = heard.recv() => match line {
                Ok(line) => socket.send(line).await?,
                // This client was too slow for some of the lines.
                Err(broadcast::error::RecvError::Lagged(missed)) => socket.send(format!("({missed} lines missed)")).await?,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
        }
    }
}

async fn upload(State(app): State<App>, upgrade: Upgrade) -> Result<Response, Refusal> {
    authenticate(&upgrade, &app)?;
    let mut settings = Settings::server();
    settings.limits.message = 64 << 20;
    Ok(upgrade.settings(settings).on_upgrade(measure))
}

async fn measure(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(format!("{} bytes", message.as_bytes().len())).await?;
    }
    Ok(())
}

/// Ready when the program is asked to end: by Ctrl-C at a terminal, or by SIGTERM, as service managers and containers do.
#[cfg(unix)]
fn asked_to_end() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ready when the program is asked to end.
#[cfg(not(unix))]
fn asked_to_end() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
}
