//! WebSocket (RFC 6455) and permessage-deflate (RFC 7692) without I/O.
//!
//! Bytes and time are arguments. This crate opens no socket, reads no clock, draws no random number and spawns no task;
//! its driver lends it the bytes that arrived and writes the bytes it returns. The same core serves the synchronous
//! loop of `taut-shard`, the tokio driver of `taut`, a fuzzer and a browser build.
//!
//! ```
//! use taut_proto::{Connection, Event, Input, Outbox, Role, Scratch, Settings, Time};
//!
//! let settings = std::sync::Arc::new(Settings::server());
//! let mut scratch = Scratch::new(|_| {});          // a server draws no mask keys
//! let mut outbox = Outbox::new();
//! let mut connection = Connection::new(Role::Server, settings, Time::ZERO, 0);
//!
//! let mut read = *b"\x89\x80\0\0\0\0\x81\x82\0\0\0\0Hi"; // a ping and the text "Hi", masked with zeros
//! let mut input = Input::new(&mut read);
//! while let Some(event) = connection.receive(&mut input, Time::ZERO, &mut scratch, &mut outbox)? {
//!     if let Event::Message(message) = event {
//!         let _ = connection.send(message, &mut scratch, &mut outbox);
//!     }
//! }
//! assert_eq!(outbox.to_vec(), b"\x8a\x00\x81\x02Hi"); // the pong, then the echo: one write
//! # Ok::<(), taut_proto::Violation>(())
//! ```
//!
//! A large message can bypass the driver's buffer. Before each read a driver can ask where the bytes belong:
//!
//! ```
//! # use std::io::Read;
//! # use taut_proto::{Connection, Event, Input, Outbox, ReadInto, Scratch, Time};
//! fn read(
//!     socket: &mut impl Read,
//!     own: &mut [u8],
//!     connection: &mut Connection,
//!     now: Time,
//!     scratch: &mut Scratch,
//!     outbox: &mut Outbox,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     if let Some(ReadInto { buffer, limit }) = connection.read_into(16 << 10) {
//!         let start = buffer.len();
//!         buffer.resize(start + limit, 0);
//!         let read = socket.read(&mut buffer[start..]);
//!         buffer.truncate(start + read.as_ref().map_or(0, |count| *count)); // also after an error
//!         if let Some(Event::Message(message)) = connection.received_into(read?, now, scratch, outbox)? {
//!             let _ = connection.send(message, scratch, outbox);
//!         }
//!     } else {
//!         let count = socket.read(own)?;
//!         let mut input = Input::new(&mut own[..count]);
//!         while let Some(event) = connection.receive(&mut input, now, scratch, outbox)? {
//!             if let Event::Message(message) = event {
//!                 let _ = connection.send(message, scratch, outbox);
//!             }
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! How to drive a connection is described on [`Connection`]; the opening handshake is in [`handshake`].

// A print panics where its output is gone; a library leaves that to the program.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod backoff;
mod close;
mod close_code;
mod connection;
mod decode;
pub mod deflate;
mod encode;
mod frame;
pub mod handshake;
mod heartbeat;
mod limits;
mod mask;
mod message;
mod outbox;
mod prepared;
mod role;
mod scratch;
mod settings;
mod teardown;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
mod utf8;
mod violation;

pub use backoff::Backoff;
pub use close::Close;
pub use close_code::CloseCode;
pub use connection::{Connection, Event, Part, ReadInto, SendError, Timeout, UnexpectedEnd};
pub use decode::Input;
pub use frame::{Header, Opcode};
pub use heartbeat::Heartbeat;
pub use limits::Limits;
pub use message::{Message, NotText};
pub use outbox::Outbox;
pub use prepared::Prepared;
pub use role::Role;
pub use scratch::Scratch;
pub use settings::Settings;
pub use teardown::{Teardown, TeardownStep};
pub use time::Time;
pub use violation::Violation;
