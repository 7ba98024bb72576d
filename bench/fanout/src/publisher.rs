//! One backend: an HTTP connection that publishes, one request after the other.

use std::io::{ErrorKind, Read, Write};

use measure::Outcome;
use measure::connect::head_length;
use mio::net::TcpStream;

/// A connection that is kept alive.
pub(crate) struct Publisher {
    pub(crate) stream: TcpStream,
    /// Which request is on its way.
    request: Option<usize>,
    written: usize,
    answer: Vec<u8>,
}

impl Publisher {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, request: None, written: 0, answer: Vec::new() }
    }

    /// Whether it may publish: the last request is answered.
    pub(crate) fn is_free(&self) -> bool {
        self.request.is_none()
    }

    pub(crate) fn publish(&mut self, requests: &[Vec<u8>], number: usize) -> Outcome<()> {
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
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("the server ended a publisher's connection, which should be kept alive".into()),
                Ok(read) => self.answer.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            if is_whole(&self.answer)? {
                self.answer.clear();
                self.request = None;
                return Ok(());
            }
        }
    }
}

/// Whether an answer is complete, and that it is a success.
pub(crate) fn is_whole(answer: &[u8]) -> Outcome<bool> {
    let Some(head) = head_length(answer) else { return Ok(false) };
    let text = String::from_utf8_lossy(answer);
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(format!("a publish was refused: {text}").into());
    }
    let length = text[..head].lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or_else(|| format!("an answer does not say how long it is: {text}"))?;
    if answer.len() > head + length {
        return Err(format!("more was answered than was asked: {text}").into());
    }
    Ok(answer.len() == head + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 2\r\n\r\n{}";
        for length in 0..answer.len() {
            assert!(!is_whole(&answer[..length]).unwrap(), "{length}");
        }
        assert!(is_whole(answer).unwrap());
    }

    #[test]
    fn what_is_no_success_is_an_error() {
        for answer in ["HTTP/1.1 503 Busy\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n{}"] {
            assert!(is_whole(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
