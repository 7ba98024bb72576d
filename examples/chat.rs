//! Chat rooms: the path is the room, and what one member says, all hear. A member who reads too slowly is closed, so that
//! nobody waits for anybody.
//!
//! ```sh
//! cargo run -p taut --example chat -- 127.0.0.1:9001
//! cargo run -p taut --example echo-client -- 'ws://127.0.0.1:9001/kitchen?name=Ada'
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::env;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use taut::{Close, CloseCode, Error, Incoming, Sender, Server};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = Server::bind(address).await?;
    println!("listening on ws://{}/", server.local_addr()?);

    let rooms = Rooms::default();
    server
        .on_failure(|failure| eprintln!("{failure}"))
        .serve(move |incoming| chat(incoming, rooms.clone()))
        .until(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
        .await
}

async fn chat(incoming: Incoming, rooms: Rooms) -> Result<(), Error> {
    let room = incoming.path().to_owned();
    let Some(name) = incoming.query_value("name").map(Cow::into_owned) else {
        return incoming.reject(400, "say who you are, as in /kitchen?name=Ada").await;
    };
    let (sender, mut receiver) = incoming.accept().await?.split();
    // Leaves the room when it is dropped, however this ends.
    let _membership = rooms.join(&room, sender);
    rooms.say(&room, &format!("{name} has come"));
    while let Some(message) = receiver.recv().await? {
        // Who has sent bytes to a chat has sent something else than a line.
        if let Some(line) = message.as_text() {
            rooms.say(&room, &format!("{name}: {line}"));
        }
    }
    Ok(())
}

/// Who is in which room. Clones are handles.
#[derive(Clone, Default)]
struct Rooms(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rooms: HashMap<String, HashMap<u64, Sender>>,
    /// Members so far, by which they are told apart.
    count: u64,
}

impl Rooms {
    fn join(&self, room: &str, sender: Sender) -> Membership {
        let mut state = self.lock();
        state.count += 1;
        let id = state.count;
        state.rooms.entry(room.to_owned()).or_default().insert(id, sender);
        Membership { rooms: self.clone(), room: room.to_owned(), id }
    }

    /// Says a line to all members of a room, and waits for none: `try_send` does its work at once or not at all.
    fn say(&self, room: &str, line: &str) {
        let mut state = self.lock();
        let Some(members) = state.rooms.get_mut(room) else { return };
        members.retain(|_, sender| match sender.try_send(line) {
            Ok(()) => true,
            // 1 MiB of earlier lines has not been read. Gaps in a chat are worse than its end: the client can come back
            // and ask for what it missed.
            Err(error) if error.is_full() => {
                let sender = sender.clone();
                tokio::spawn(async move { sender.close(Close::new(CloseCode::TRY_AGAIN_LATER, "too slow")).await });
                false
            }
            // Its own task sees that it is gone.
            Err(_) => false,
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member's place in a room.
struct Membership {
    rooms: Rooms,
    room: String,
    id: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.rooms.lock();
        if let Some(members) = state.rooms.get_mut(&self.room) {
            members.remove(&self.id);
            if members.is_empty() {
                state.rooms.remove(&self.room);
            }
        }
    }
}
