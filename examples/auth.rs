//! A server that knows who its clients are: by a bearer token, or by the cookie of a session.
//!
//! ```sh
//! cargo run -p taut --example auth -- 127.0.0.1:9001
//! ```
//!
//! Three ways to come in:
//!
//! - A program sends `Authorization: Bearer TOKEN`: `Client::new(url).bearer("ada-token")`.
//! - A page in a browser cannot set headers, and offers the token as a second subprotocol:
//!   `new WebSocket(url, ['chat.v1', 'bearer.ada-token'])`. The answer names `chat.v1` alone.
//! - A page of the same origin sends its cookies by itself: `new WebSocket(url)`. Pages of other origins are refused
//!   before they are asked who they are, so that none can act for a user who is signed in here.

use std::collections::HashMap;
use std::env;
use std::sync::Arc;

use taut::{Acceptor, Error, Refusal, Request, Server, WebSocket};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = Server::bind(address).await?;
    println!("listening on ws://{}/", server.local_addr()?);

    let users = Arc::new(Users::new());
    server
        // A browser that offers subprotocols gives up unless one of them is agreed on.
        .acceptor(Acceptor::new().subprotocols(["chat.v1"]))
        .on_failure(|failure| eprintln!("{failure}"))
        .authenticate(move |request| {
            let users = Arc::clone(&users);
            async move { users.of(&request) }
        })
        .serve(greet)
        .until(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
        .await
}

async fn greet(mut socket: WebSocket, user: User) -> Result<(), Error> {
    socket.send(format!("hello, {}", user.name)).await?;
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

#[derive(Clone)]
struct User {
    name: &'static str,
    may_connect: bool,
}

/// Whom tokens and sessions belong to; a real application asks its database.
///
/// They are looked up by a hash with a random key and compared only with what has the same hash, so the time that it
/// takes tells nothing about how much of a guess was right. Comparing with `==` in a loop would.
struct Users {
    by_token: HashMap<&'static str, User>,
    by_session: HashMap<&'static str, User>,
}

impl Users {
    fn new() -> Self {
        let ada = User { name: "Ada", may_connect: true };
        let bob = User { name: "Bob", may_connect: false };
        Self {
            by_token: HashMap::from([("ada-token", ada.clone()), ("bob-token", bob)]),
            by_session: HashMap::from([("ada-session", ada)]),
        }
    }

    /// The user whom a request is from, or why it is turned away. The refusal's text is the body of the response.
    fn of(&self, request: &Request) -> Result<User, Refusal> {
        let user = match (request.bearer(), request.cookie("session")) {
            (Some(token), _) => self.by_token.get(token),
            (None, Some(session)) => self.by_session.get(session),
            (None, None) => return Err(Refusal::unauthorized("present a bearer token, or sign in")),
        };
        match user {
            Some(user) if user.may_connect => Ok(user.clone()),
            Some(_) => Err(Refusal::forbidden("this account may not connect")),
            None => Err(Refusal::unauthorized("the token or the session is not valid")),
        }
    }
}
