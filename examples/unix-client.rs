//! Talks to a WebSocket server on a Unix socket: sends each line of the standard input and prints what comes back.
//!
//! ```sh
//! cargo run -p taut --example unix-client -- /run/server.sock
//! ```

#[cfg(unix)]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use taut::{Client, CloseCode};
    use tokio::io::{AsyncBufReadExt, BufReader, stdin};
    use tokio::net::UnixStream;

    let Some(path) = std::env::args().nth(1) else {
        return Err("which socket? Give its path, such as /run/server.sock".into());
    };
    let stream = UnixStream::connect(&path).await.map_err(|error| format!("cannot connect to {path}: {error}"))?;
    // The URL says what to request; where to connect to is the stream.
    let mut socket = Client::new("ws://localhost/events").connect_over(stream).await?;

    let mut lines = BufReader::new(stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => socket.send(line).await?,
                None => break,
            },
            message = socket.recv() => match message? {
                Some(message) => println!("{message}"),
                None => return Ok(()), // the server has closed the connection
            },
        }
    }
    socket.close(CloseCode::NORMAL).await?;
    // What came before the end.
    while let Some(message) = socket.recv().await? {
        println!("{message}");
    }
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    eprintln!("Unix sockets are not to be had here");
}
