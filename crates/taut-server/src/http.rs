//! Serving HTTP/1.1 on sockets that have left their shards.

use std::io::{Cursor, Write};
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use taut_proto::handshake::Refusal;
use taut_shard::Departure;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Serves every socket that comes, until no more can come and the last request is answered.
///
/// Once `draining` is true, connections end with the request that they are at.
pub(crate) async fn serve(mut departures: mpsc::Receiver<Departure>, router: Router, draining: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            departure = departures.recv() => match departure {
                Some(departure) if connections.len() >= MOST_CONNECTIONS => turn_away(&departure),
                Some(departure) => drop(connections.spawn(serve_connection(departure, router.clone(), draining.clone()))),
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Sends a socket on its way from its shard. The shard does not wait: when there is no room, the client is told to come back.
pub(crate) fn depart(departures: &mpsc::Sender<Departure>, departure: Departure) {
    if let Err(refused) = departures.try_send(departure) {
        turn_away(&refused.into_inner());
    }
}

/// A way for sockets from the shards to [`serve`].
pub(crate) fn departures() -> (mpsc::Sender<Departure>, mpsc::Receiver<Departure>) {
    mpsc::channel(MOST_DEPARTING)
}

async fn serve_connection(departure: Departure, router: Router, mut draining: watch::Receiver<bool>) {
    let Departure { stream, bytes, peer, .. } = departure;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%peer, %error, "a socket could not be taken over"),
    };
    let (reader, writer) = stream.into_split();
    let stream = tokio::io::join(Cursor::new(bytes).chain(reader), writer);
    let is_draining = *draining.borrow();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(LARGEST_BUFFER)
        .keep_alive(!is_draining)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let served = if is_draining {
        connection.await
    } else {
        tokio::select! {
            served = connection.as_mut() => served,
            _ = async { draining.wait_for(|draining| *draining).await.map(drop) } => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "an HTTP connection ended badly");
    }
}

fn turn_away(departure: &Departure) {
    let mut response = Vec::new();
    Refusal::busy(Duration::from_secs(1)).write_response(&mut response);
    // A fresh socket takes a few hundred bytes; if this one does not, its client learns as much from the end.
    let _ = (&departure.stream).write_all(&response);
}

/// HTTP connections at a time. Each costs some 20 KiB while it is busy.
const MOST_CONNECTIONS: usize = 10_000;

/// Sockets on their way from the shards.
const MOST_DEPARTING: usize = 1024;

/// How long a connection may take for the head of its next request, silence before it included.
const IDLE: Duration = Duration::from_secs(60);

/// Bytes; what hyper may hold of a connection's input, and the most that a head may have.
const LARGEST_BUFFER: usize = 64 * 1024;
