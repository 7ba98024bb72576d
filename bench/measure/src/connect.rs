//! A connection to a server, up to and including the handshake; blocking, since nothing is measured yet.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Connects.
///
/// `number` says the how many-th connection to this server it is: past what one address has in ephemeral ports, the
/// next address of the loopback network is the source.
pub fn open(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = socket(address, number)?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The same without waiting: the stream is connected once it is writable.
pub fn begin(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = socket(address, number)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        // What has begun goes on by itself.
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from(socket)),
    }
}

fn socket(address: SocketAddr, number: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    let source = number / CONNECTIONS_PER_ADDRESS;
    if source > 0 {
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + source as u32);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    Ok(socket)
}

/// Asks for a WebSocket at `path` and reads the answer; gives what came behind it.
pub fn shake_hands(stream: &mut TcpStream, address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    stream.write_all(&request(address, path))?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let read = stream.read(&mut chunk)?;
        head.extend_from_slice(&chunk[..read]);
        if let Some(length) = head_length(&head) {
            check(&head[..length])?;
            head.drain(..length);
            return Ok(head);
        }
        if read == 0 || head.len() > MAX_HEAD {
            return Err(refused("it did not end its answer with an empty line", &head));
        }
    }
}

/// The request for a WebSocket at `path`.
pub fn request(address: SocketAddr, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Bytes of the head that `received` begins with, once it is whole.
pub fn head_length(received: &[u8]) -> Option<usize> {
    received.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|position| position + 4)
}

/// The parts of the answer without which it is no WebSocket (RFC 6455 §4.1), and that nothing else was agreed.
pub fn check(head: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    if !lines.next().unwrap_or("").starts_with("HTTP/1.1 101 ") {
        return Err(refused("its status is not 101", head));
    }
    let header = |name: &str| {
        lines.clone().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    if header("Sec-WebSocket-Accept") != Some(ACCEPT) {
        return Err(refused("its Sec-WebSocket-Accept is not the answer to our key", head));
    }
    if header("Sec-WebSocket-Extensions").is_some() {
        return Err(refused("it agreed to an extension that nobody offered", head));
    }
    Ok(())
}

fn refused(why: &str, head: &[u8]) -> io::Error {
    let answer = String::from_utf8_lossy(head);
    io::Error::new(ErrorKind::InvalidData, format!("{why}; the server answered {answer:?}"))
}

/// The pair of RFC 6455 §1.3, so that no SHA-1 is needed to check the answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What a server has to answer.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Linux has some 28,000 ephemeral ports by default.
const CONNECTIONS_PER_ADDRESS: usize = 20_000;

/// How long a server may be silent before the run ends.
pub const PATIENCE: Duration = Duration::from_secs(10);

const MAX_HEAD: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_rfc_is_taken_whatever_the_case_of_its_names() {
        let head =
            format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nSEC-WEBSOCKET-ACCEPT:{ACCEPT} \r\n\r\n");
        check(head.as_bytes()).unwrap();
    }

    #[test]
    fn past_the_ports_of_one_address_the_next_is_the_source() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (number, source) in [(19_999, 1), (20_000, 2), (45_000, 3)] {
            let _stream = open(listener.local_addr().unwrap(), number).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), Ipv4Addr::new(127, 0, 0, source));
        }
    }

    #[test]
    fn an_answer_that_agrees_to_something_else_is_refused() {
        for head in [
            "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
            "HTTP/1.1 101 Fine\r\nSec-WebSocket-Accept: other\r\n\r\n".to_owned(),
            format!(
                "HTTP/1.1 101 Fine\r\nSec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
            ),
        ] {
            check(head.as_bytes()).unwrap_err();
        }
    }
}
