//! A synchronous WebSocket event loop: many connections on one thread, no futures, no tasks, no locks.
//!
//! A [`Shard`] owns its listener, its sockets, one read buffer and one timer wheel. It reads, hands messages to a
//! [`Handler`] as slices of its buffer, and writes what the handler sent in one write for each connection and tick.
//! A connection stays with its shard for life; run one shard for each core. Other threads reach a shard through its
//! bounded [`Mailbox`].
//!
//! On by default: a heartbeat, limits on messages, heads and handshakes in progress, deadlines for handshake and
//! close, the same-origin check, a bound on what waits for a slow reader. TLS is a setting.
//!
//! A handler also sees plain HTTP requests. It answers them on the shard or hands the connection over; either way the
//! connection stays for the next request, which may be an upgrade. One parser judges every head. Idle connections own
//! no buffer and no outbox, and unfinished messages share one bound beyond 16 KiB each.
//!
//! ```no_run
//! use taut_proto::Message;
//! use taut_shard::{Handler, Session, Settings, Shard};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type User = ();
//!     type Mail = ();
//!
//!     fn message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
//!         let _ = session.send(message);
//!     }
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! Shard::new(listener, Echo, Settings::default())?.run()
//! # }
//! ```

// A print panics where its output is gone; a library leaves that to the program.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod conn;
mod connections;
mod deadlines;
mod handler;
mod http1;
mod id;
mod intake;
mod listen;
mod mailbox;
mod outboxes;
mod pipe;
mod proxy;
mod settings;
mod shard;
mod socket;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
mod transport;

pub use connections::{Answer, Carrier, Connections, Sent, Stats};
pub use handler::{Closed, Handler, Handover, Reason, Responded, Session, Verdict};
pub use id::{ConnectionId, HandshakeId};
pub use intake::Intake;
pub use listen::{listen, share};
pub use mailbox::{Mailbox, Refused};
pub use pipe::{Pipe, ShardPipe, pipe};
pub use proxy::{InvalidNetwork, Network, ProxyProtocol};
pub use settings::{Outgoing, Settings, SlowReader};
pub use shard::{Drain, DrainGroup, Drainer, Shard};
pub use socket::{AnySocket, Kernel, Ready, Socket, System};
