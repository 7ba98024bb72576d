//! One backend: an HTTP connection that publishes, one request after the other.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use measure::Outcome;
use measure::connect::{begin, head_length};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// A connection that is kept alive, if the server will have it so; else a new one for each request.
pub(crate) struct Publisher {
    stream: TcpStream,
    token: Token,
    address: SocketAddr,
    /// The server has said that it ends the connection.
    is_over: bool,
    /// Which request is on its way.
    request: Option<usize>,
    written: usize,
    answer: Vec<u8>,
}

impl Publisher {
    /// Connects.
    pub(crate) fn open(registry: &Registry, address: SocketAddr, token: Token) -> Outcome<Self> {
        let stream = connected(registry, address, token)?;
        Ok(Self { stream, token, address, is_over: false, request: None, written: 0, answer: Vec::new() })
    }

    /// Whether it may publish: the last request is answered.
    pub(crate) fn is_free(&self) -> bool {
        self.request.is_none()
    }

    pub(crate) fn publish(&mut self, registry: &Registry, requests: &[Vec<u8>], number: usize) -> Outcome<()> {
        if self.is_over {
            self.stream = connected(registry, self.address, self.token)?;
            self.is_over = false;
        }
        self.request = Some(number);
        self.written = 0;
        self.advance(requests)
    }

    /// Writes and reads as far as it can.
    pub(crate) fn advance(&mut self, requests: &[Vec<u8>]) -> Outcome<()> {
        let Some(request) = self.request.map(|number| &requests[number]) else { return Ok(()) };
        while self.written < request.len() {
            match self.stream.write(&request[self.written..]) {
                Ok(written) => self.written += written,
                // A connection that is still being made is not connected (connect(2)).
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("the server ended a publisher's connection before it had answered".into()),
                Ok(read) => self.answer.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(answered) = answered(&self.answer)? {
                self.is_over = answered == Answered::AndOver;
                self.answer.clear();
                self.request = None;
                return Ok(());
            }
        }
    }
}

fn connected(registry: &Registry, address: SocketAddr, token: Token) -> Outcome<TcpStream> {
    let mut stream = TcpStream::from_std(begin(address, 0)?);
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

/// A request has been answered as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The connection is good for the next.
    AndOpen,
    /// The server says that it ends the connection.
    AndOver,
}

/// Looks whether an answer is complete (`None`: not yet), and that it is a success.
pub(crate) fn answered(answer: &[u8]) -> Outcome<Option<Answered>> {
    let Some(head) = head_length(answer) else { return Ok(None) };
    let text = String::from_utf8_lossy(answer);
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(format!("a publish was refused: {text}").into());
    }
    let value = |name: &str| {
        text[..head].lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let length: Option<usize> = value("content-length").and_then(|length| length.parse().ok());
    let length = length.ok_or_else(|| format!("an answer does not say how long it is: {text}"))?;
    if answer.len() > head + length {
        return Err(format!("more was answered than was asked: {text}").into());
    }
    let is_over = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let answered = if is_over { Answered::AndOver } else { Answered::AndOpen };
    Ok((answer.len() == head + length).then_some(answered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 2\r\n\r\n{}", Answered::AndOpen),
            ("HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n", Answered::AndOver),
        ] {
            for length in 0..answer.len() {
                assert_eq!(answered(&answer.as_bytes()[..length]).unwrap(), None, "{length}");
            }
            assert_eq!(answered(answer.as_bytes()).unwrap(), Some(expected));
        }
    }

    #[test]
    fn what_is_no_success_is_an_error() {
        for answer in
            ["HTTP/1.1 503 Busy\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n{}"]
        {
            assert!(answered(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
