//! Listeners for several shards on one address.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Binds `count` listeners to one address, one for each shard; the kernel spreads connections over them
/// (`SO_REUSEPORT`). With port 0 the system chooses the port, the same for all.
///
/// Where a port is to be shared, the first bind still fails if another program has it: `SO_REUSEPORT` is set only
/// after that is known.
pub fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if count <= 1 {
        return Ok(vec![bind(address, false)?]);
    }
    // Another server of ours on the same port would share it silently, half of the connections each.
    if address.port() != 0 {
        drop(bind(address, false)?);
    }
    let first = bind(address, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(bind(address, true)?);
    }
    Ok(listeners)
}

/// Shares listeners that somebody else has bound, such as systemd, among `count` shards: each gets one, in turns.
///
/// Shards on the same listener take from one queue: each new client wakes all of them, and the first one gets it. What
/// still waits in the queue when the shards stop listening stays there for whoever holds the listener next.
///
/// # Errors
/// When there are more listeners than shards, as nobody would serve the rest; when they are not at one address; on Linux
/// also when one does not listen.
pub fn share(listeners: Vec<TcpListener>, count: usize) -> io::Result<Vec<TcpListener>> {
    let invalid = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    if listeners.is_empty() || listeners.len() > count {
        return invalid(format!("{} sockets cannot be shared by {count} shards", listeners.len()));
    }
    let address = listeners[0].local_addr()?;
    for listener in &listeners {
        let other = listener.local_addr()?;
        if other != address {
            return invalid(format!("all sockets have to be at one address, and not at {address} and {other}"));
        }
        if !is_listening(listener)? {
            return invalid(format!("the socket at {address} does not listen"));
        }
    }
    let missing = count - listeners.len();
    let copies: Vec<_> =
        listeners.iter().cycle().take(missing).map(TcpListener::try_clone).collect::<Result<_, _>>()?;
    Ok(listeners.into_iter().chain(copies).collect())
}

#[cfg(any(target_os = "android", target_os = "freebsd", target_os = "linux"))]
fn is_listening(listener: &TcpListener) -> io::Result<bool> {
    socket2::SockRef::from(listener).is_listener()
}

/// Elsewhere the system cannot be asked: macOS and Windows say so only when a connection is accepted.
#[cfg(not(any(target_os = "android", target_os = "freebsd", target_os = "linux")))]
fn is_listening(_: &TcpListener) -> io::Result<bool> {
    Ok(true)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server takes its port back at once.
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(shared)?;
    #[cfg(not(unix))]
    if shared {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "several shards on one port need SO_REUSEPORT"));
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that may wait to be accepted; the kernel caps it by its own limit.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").expect("a port")
    }

    #[test]
    fn each_shard_gets_a_listener_and_those_that_are_too_few_are_shared() {
        let one = listener();
        let address = one.local_addr().expect("an address");
        let shared = share(vec![one], 3).expect("shared");
        assert_eq!(shared.len(), 3);
        assert!(shared.iter().all(|listener| listener.local_addr().is_ok_and(|other| other == address)));
    }

    #[test]
    fn listeners_that_cannot_be_shared_are_refused_with_the_reason() {
        let reason = |listeners, count| share(listeners, count).expect_err("refused").to_string();
        assert_eq!(reason(vec![listener(), listener()], 1), "2 sockets cannot be shared by 1 shards");
        assert!(reason(vec![listener(), listener()], 2).contains("have to be at one address"));
    }

    #[cfg(any(target_os = "android", target_os = "freebsd", target_os = "linux"))]
    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        let refused = share(vec![bound.into()], 1).expect_err("refused").to_string();
        assert!(refused.ends_with("does not listen"), "{refused}");
    }
}
