//! Takes connections from the listener, and answers clients when there are no descriptors left for them.

use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use taut_proto::handshake::Refusal;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::{BUSY, Failure, Report};
use crate::Acceptor;

/// The next connection, once there is room for its handshake.
pub(super) async fn next(
    listener: &TcpListener,
    handshakes: &Arc<Semaphore>,
    reserved: &mut ReservedDescriptor,
    report: &Report,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let Ok(permit) = Arc::clone(handshakes).acquire_owned().await else { unreachable!("it is never closed") };
    let mut starved_since = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            // Of the connection that was to be accepted, not of the listener.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                report(&Failure::Accept(error));
                // Some may be free again in a moment; after that, an answer is better than to wait without end.
                if starved_since.get_or_insert_with(Instant::now).elapsed() >= STARVATION {
                    reserved.turn_away(listener).await;
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// A descriptor that is kept in reserve, to answer clients with when the process has run out of them.
pub(super) struct ReservedDescriptor {
    file: Option<File>,
    /// What they are told.
    response: Vec<u8>,
}

impl ReservedDescriptor {
    pub(super) fn new(acceptor: &Acceptor) -> Self {
        let mut response = Vec::new();
        // Before its handshake, a client by TLS understands nothing but the end.
        if !acceptor.is_tls() {
            Refusal::busy(BUSY).write_response(&mut response);
        }
        Self { file: Self::open(), response }
    }

    fn open() -> Option<File> {
        File::open("/dev/null").ok()
    }

    /// Answers the clients that wait, up to a bound, and closes their connections.
    async fn turn_away(&mut self, listener: &TcpListener) {
        for _ in 0..TURNED_AWAY {
            // Somebody else may have been faster the last time.
            let Some(file) = self.file.take().or_else(Self::open) else { return };
            drop(file);
            let accepted = poll_fn(|cx| match listener.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(accepted.ok()),
                Poll::Pending => Poll::Ready(None),
            })
            .await;
            let is_there = accepted.is_some();
            if let Some(mut stream) = accepted.and_then(|(stream, _)| stream.into_std().ok()) {
                self.answer(&mut stream);
            }
            self.file = Self::open();
            if !is_there {
                return;
            }
        }
    }

    /// The socket never blocks.
    fn answer(&self, stream: &mut std::net::TcpStream) {
        // What is left unread would make a reset of the end, at which the client would forget the answer.
        let mut unread = [0; 4096];
        for _ in 0..READS {
            if !matches!(stream.read(&mut unread), Ok(1..)) {
                break;
            }
        }
        // A socket that is new has room for it.
        let _ = stream.write_all(&self.response);
        let _ = stream.shutdown(Shutdown::Write);
    }
}

fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// How long clients are left to wait for a descriptor.
const STARVATION: Duration = Duration::from_secs(2);

/// Clients that are turned away before the others have their turn.
const TURNED_AWAY: usize = 256;

/// Reads of a client that is turned away: its request, if that is not much longer than usual.
const READS: usize = 8;

/// How long a listener that cannot accept is left alone.
const PAUSE: Duration = Duration::from_millis(100);
