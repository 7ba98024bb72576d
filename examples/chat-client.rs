//! Stays in a chat room: sends each line of the standard input, prints what the others say, and comes back whenever the
//! connection is lost, with the token that is valid then.
//!
//! ```sh
//! echo secret > /tmp/token
//! cargo run -p taut --example chat -- 127.0.0.1:9001 &
//! cargo run -p taut --example chat-client -- 'ws://127.0.0.1:9001/kitchen?name=Ada' /tmp/token
//! ```
//!
//! Then stop the server and start it again.

use std::env;
use std::io::stdin;
use std::thread;

use taut::reconnect::Decision;
use taut::{Backoff, Client, CloseCode, Error, Reconnecting};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// What this chat's server closes with when the token has expired.
const TOKEN_EXPIRED: CloseCode = CloseCode::new(4001);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(url), Some(token_file)) = (arguments.next(), arguments.next()) else {
        return Err(
            "give the room's URL and the file with the token: ws://127.0.0.1:9001/kitchen?name=Ada token".into()
        );
    };

    // Called for each attempt. Here the token is in a file that somebody renews; it might as well be fetched by HTTP.
    let make_client = move |_| {
        let (url, token_file) = (url.clone(), token_file.clone());
        async move {
            let token = tokio::fs::read_to_string(token_file).await.map_err(Error::other)?;
            Ok(Client::new(&url).bearer(token.trim()))
        }
    };
    let mut room = Reconnecting::new(Backoff::default(), make_client)
        .decide(|ended| match ended.close_code() {
            // At once: the next attempt reads the token anyway.
            Some(TOKEN_EXPIRED) => Decision::RetryNow,
            _ => ended.decision(),
        })
        .on_event(|event| eprintln!("{event}"));

    // A thread of its own reads the terminal: tokio's would hold up the end of the program. It sends whenever there is a
    // connection, and waits while there is none.
    let (sender, runtime) = (room.sender(), Handle::current());
    let (typing, mut typed_all) = oneshot::channel::<()>();
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            if runtime.block_on(sender.send(line)).is_err() {
                break;
            }
        }
        drop(typing);
    });

    loop {
        tokio::select! {
            // An error only when trying again cannot help.
            message = room.recv() => println!("{}", message?),
            _ = &mut typed_all => break,
        }
    }
    room.close(CloseCode::NORMAL).await?;
    Ok(())
}
