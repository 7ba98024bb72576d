//! Sends each line of the standard input to a WebSocket server and prints what comes back.
//!
//! ```sh
//! cargo run --release -- echo &
//! cargo run -p taut --example echo-client -- ws://127.0.0.1:9001/
//! ```

use taut::{Client, CloseCode, Deflate, Error};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(url) = std::env::args().nth(1) else {
        return Err("which server? Give its URL, such as ws://127.0.0.1:9001/".into());
    };
    let mut socket = Client::new(&url).deflate(Deflate::default()).connect().await?;
    eprintln!("connected; type a line, or end with Ctrl-D");

    let mut lines = BufReader::new(stdin()).lines();
    let mut waiting = 0_usize;
    let mut reading = true;
    // Until everything that was sent has come back.
    while reading || waiting > 0 {
        // Whichever of the two is dropped loses nothing: `recv` and `next_line` can both be cancelled.
        tokio::select! {
            line = lines.next_line(), if reading => match line? {
                Some(line) => {
                    socket.send(line).await?;
                    waiting += 1;
                }
                None => reading = false,
            },
            message = socket.recv() => match message? {
                Some(message) => {
                    println!("{}", message.as_text().unwrap_or("(bytes)"));
                    waiting = waiting.saturating_sub(1);
                }
                None => return Err(closed(&socket).into()),
            },
        }
    }
    close(&mut socket).await?;
    Ok(())
}

async fn close(socket: &mut taut::WebSocket) -> Result<(), Error> {
    socket.close(CloseCode::NORMAL).await
}

fn closed(socket: &taut::WebSocket) -> String {
    let close = socket.peer_close().map_or_else(String::new, |close| close.to_string());
    format!("the server closed the connection: {close}")
}
