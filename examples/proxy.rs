//! A proxy between two WebSockets: for each client it connects to a server, and passes on what either side sends. It
//! holds no message as a whole, so messages may have any length, and it closes one side as the other one was closed.
//!
//! ```sh
//! cargo run -p taut --example echo-server -- 127.0.0.1:9001 &
//! cargo run -p taut --example proxy -- ws://127.0.0.1:9001/ 127.0.0.1:9002
//! cargo run -p taut --example echo-client -- ws://127.0.0.1:9002/
//! ```

use std::env;

use taut::{Client, Close, CloseCode, Error, Incoming, Receiver, Sender, Server};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let Some(upstream) = arguments.next() else {
        return Err(Error::other("which server? Give its URL, such as ws://127.0.0.1:9001/"));
    };
    let server = Server::bind(arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned())).await?;
    println!("listening on ws://{}/", server.local_addr()?);

    server
        .on_failure(|failure| eprintln!("{failure}"))
        .serve(move |incoming| proxy(incoming, upstream.clone()))
        .until(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
        .await
}

async fn proxy(incoming: Incoming, upstream: String) -> Result<(), Error> {
    let mut client = Client::new(&upstream);
    if let Some(token) = incoming.bearer() {
        client = client.bearer(token);
    }
    // Before the client is accepted, so that it is told by a status what it would be told by the server.
    let server = match client.connect().await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{upstream}: {error}");
            let status = error.status().filter(|status| (400..600).contains(status));
            return incoming.reject(status.unwrap_or(502), "the server behind this one cannot be reached").await;
        }
    };
    let (to_server, from_server) = server.split();
    let (to_client, from_client) = incoming.accept().await?.split();
    let (up, down) = tokio::join!(relay(from_client, to_server), relay(from_server, to_client));
    up.and(down)
}

/// Passes on what one side sends until that side is closed, then closes the other one in the same way.
async fn relay(mut from: Receiver, mut to: Sender) -> Result<(), Error> {
    let passed = pass_on(&mut from, &mut to).await;
    let close = match (&passed, from.peer_close()) {
        (Ok(()), Some(close)) => close,
        // We have closed it ourselves, since the other side is closed.
        (Ok(()), None) => return Ok(()),
        (Err(_), _) => Close::new(CloseCode::BAD_GATEWAY, "the connection behind the proxy was lost"),
    };
    // If this side is closed as well, that was seen by whoever receives from it.
    let _ = to.close(close).await;
    passed
}

async fn pass_on(from: &mut Receiver, to: &mut Sender) -> Result<(), Error> {
    while let Some(mut message) = from.recv_stream().await? {
        let mut copy = if message.is_text() { to.send_text_stream() } else { to.send_binary_stream() };
        // An error if the message is cut off. Then its copy is dropped unfinished, which the reader there can tell.
        while let Some(part) = message.part().await? {
            copy.write(part).await?; // waits for the slower of the two
        }
        copy.finish().await?;
    }
    Ok(())
}
